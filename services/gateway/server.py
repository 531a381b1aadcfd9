"""The gateway's program: python -m services.gateway.server PORT [WORKERS].

A supervisor process holds the socket and watches its workers. SIGHUP restarts the workers one after the other, each
once its successor is ready. Pending connections stay with the socket when a worker ends or is killed.
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

from services.gateway.compat import run_workers
from services.gateway.connections import LimitedHttpProtocol, allow_connections
from tasks.core.permissions import use_private_umask
from tasks.core.processes import tune_gc
from tasks.core.settings import Settings, settings

DRAIN_SECONDS = 10  # seconds that running calls have when a worker is stopped
LINGER_SECONDS = 2.0  # of these, for an idle connection, since its next request may be on the way
START_SECONDS = 60  # seconds for a worker to start, and to answer a health check
BACKLOG = 2048


def main(config: Settings, port: int, workers: int) -> None:
    """Serve until a signal stops the process."""
    use_private_umask()
    metrics_folder = _metrics_folder(config)
    metrics_folder.mkdir(parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics_folder)  # shared by all; read on import
    server_config = uvicorn.Config(
        "services.gateway.server:worker",
        factory=True,
        http=DrainingHttpProtocol,
        ws="none",
        workers=workers,
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # trust only the connection: any client can send the header
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_worker_healthcheck=START_SECONDS,
    )
    run_workers(server_config, [bind_socket(config.host, port)])


def worker() -> Starlette:
    """The application of one worker, which ends when the supervisor process is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    tune_gc()
    allow_connections()
    from services.gateway.app import make_app

    config = settings()
    prune_metrics(_metrics_folder(config))
    sys.setswitchinterval(0.001)  # the usage writer's thread waits less for the event loop's
    return make_app(config)


class DrainingHttpProtocol(LimitedHttpProtocol):
    """A connection of a stopping worker: its next response closes it, so that no call is refused."""

    stopping = False

    def shutdown(self) -> None:
        DrainingHttpProtocol.stopping = True
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(LINGER_SECONDS, super().shutdown)
        else:
            super().shutdown()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.stopping:
            self.cycle.keep_alive = False


def bind_socket(host: str, port: int) -> socket.socket:
    """Bind the port, also while workers of a killed supervisor are still closing their socket."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))
    listener.listen(BACKLOG)
    return listener


def prune_metrics(metrics_folder: Path) -> None:
    """Drop the gauges of dead workers."""
    from prometheus_client.multiprocess import mark_process_dead

    for pid in {path.stem.rpartition("_")[2] for path in metrics_folder.glob("*.db")}:
        if not Path(f"/proc/{pid}").exists():
            mark_process_dead(pid, str(metrics_folder))  # type: ignore[no-untyped-call]


def _metrics_folder(config: Settings) -> Path:
    return config.state / "gateway" / "counts"


if __name__ == "__main__":
    main(settings(), int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
