"""The private parts of uvicorn and MLflow that the gateway needs; tests/gateway/test_compat.py holds each of them."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle as RequestResponseCycle
from uvicorn.supervisors import multiprocess

if TYPE_CHECKING:
    from mlflow.tracing.client import TracingClient


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with public names for what a subclass needs."""

    # an alias costs nothing on the way of every piece of data; uvicorn has no public name for it
    cancel_keep_alive = HttpToolsProtocol._unset_keepalive_if_required

    def start_request(self, cycle: RequestResponseCycle) -> None:
        """Called when the application is about to handle a request."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self.start_request(cycle)  # uvicorn calls nothing public here, and pipelined requests start later
        super()._start_asgi_task(cycle, app)


class GatewayWorker(multiprocess.Process):
    """A worker whose death is noticed at once: with our copy of its pipe open, uvicorn would wait for a timeout."""

    def start(self) -> None:
        super().start()
        self.child_conn.close()


def status_line(status: int) -> bytes:
    """The first line of a response; uvicorn builds them once, and has no function for one."""
    return STATUS_LINE[status]


def run_workers(config: uvicorn.Config, sockets: Sequence[socket.socket]) -> None:
    """Serve with several processes until a signal ends them; uvicorn has no option for the class of its workers."""
    multiprocess.Process = GatewayWorker  # type: ignore[misc]
    multiprocess.Multiprocess(config, list(sockets)).run()


def tracing_client(uri: str) -> TracingClient:
    """MLflow's writer of whole traces; its public API only records calls of the own process, as they happen."""
    from mlflow.tracing.client import TracingClient

    return TracingClient(uri)
