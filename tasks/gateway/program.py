"""A process of the gateway: python -m tasks.gateway.program PORT. Several may share the port."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from tasks.foundation.settings import Settings, settings

DRAIN = 10  # seconds that calls under way have when it is told to end
BACKLOG = 2048


def main(here: Settings, port: int) -> None:
    """Serve until told to end."""
    counts = here.state / "gateway" / "counts"  # Prometheus's, of all processes together
    counts.mkdir(parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(counts)  # read when the package is imported
    import uvicorn

    from tasks.gateway.app import make_app

    forget_dead(counts)
    sys.setswitchinterval(0.001)  # the ledger's thread waits less for the loop's
    config = uvicorn.Config(
        make_app(here),
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # who asks is who connects: anybody could claim to be this machine
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=DRAIN,
    )
    uvicorn.Server(config).run(sockets=[listening(here.host, port)])


def listening(host: str, port: int) -> socket.socket:
    """A socket that other processes of the gateway may have too; the system shares connections out among them."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((host, port))
    made.listen(BACKLOG)
    return made


def forget_dead(counts: Path) -> None:
    """What killed processes said that they were doing just then counts no longer."""
    from prometheus_client.multiprocess import mark_process_dead

    for pid in {path.stem.rpartition("_")[2] for path in counts.glob("*.db")}:
        if not Path(f"/proc/{pid}").exists():
            mark_process_dead(pid, str(counts))  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(settings(), int(sys.argv[1]))
