"""The gateway's program: python -m services.gateway.server PORT [WORKERS].

One process holds the socket and watches over those that answer. SIGHUP starts these anew, one after the other, each
once its successor answers. Connections that nobody took yet stay with the socket whichever of them ends, or is killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from uvicorn.supervisors import multiprocess

from services.gateway.connections import LimitedConnection, allow_connections
from tasks.core.permissions import use_private_umask
from tasks.core.processes import tune_gc
from tasks.core.settings import Settings, settings

DRAIN = 10  # seconds that calls under way have when a process is told to end
LINGER = 2.0  # of these, seconds that a connection without one has, since its next may be on the way
START = 60  # seconds that a process may take until it answers, and to say that it lives
BACKLOG = 2048


def main(here: Settings, port: int, workers: int) -> None:
    """Serve until told to end."""
    use_private_umask()
    counts = _counts(here)
    counts.mkdir(parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(counts)  # of all processes together; read when imported
    config = uvicorn.Config(
        "services.gateway.server:worker",
        factory=True,
        http=DrainingConnection,
        ws="none",
        workers=workers,
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # who asks is who connects: anybody could claim to be this machine
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=DRAIN,
        timeout_worker_healthcheck=START,
    )
    multiprocess.Process = GatewayWorker  # type: ignore[misc]
    multiprocess.Multiprocess(config, [bind_socket(here.host, port)]).run()


def worker() -> Starlette:
    """The application, in the process that answers; it ends when the one that holds the socket is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    tune_gc()
    allow_connections()
    from services.gateway.app import make_app

    here = settings()
    prune_metrics(_counts(here))
    sys.setswitchinterval(0.001)  # the ledger's thread waits less for the loop's
    return make_app(here)


class GatewayWorker(multiprocess.Process):
    """One that is killed is missed at once: with our copy of its pipe open, uvicorn waits for its pong for `START`."""

    def start(self) -> None:
        super().start()
        self.child_conn.close()


class DrainingConnection(LimitedConnection):
    """A connection whose process ends: its next answer says that it is the last; no call meets a closed door."""

    leaving = False

    def shutdown(self) -> None:
        DrainingConnection.leaving = True
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(LINGER, super().shutdown)
        else:
            super().shutdown()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.leaving:
            self.cycle.keep_alive = False


def bind_socket(host: str, port: int) -> socket.socket:
    """The socket; of a program that was killed, processes may still hold the one before, which they are closing."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((host, port))
    made.listen(BACKLOG)
    return made


def prune_metrics(counts: Path) -> None:
    """What killed processes said that they were doing just then counts no longer."""
    from prometheus_client.multiprocess import mark_process_dead

    for pid in {path.stem.rpartition("_")[2] for path in counts.glob("*.db")}:
        if not Path(f"/proc/{pid}").exists():
            mark_process_dead(pid, str(counts))  # type: ignore[no-untyped-call]


def _counts(here: Settings) -> Path:
    return here.state / "gateway" / "counts"


if __name__ == "__main__":
    main(settings(), int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
