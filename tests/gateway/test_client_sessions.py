"""Promise: the gateway reaches a release at any of its addresses: Unix sockets on this machine, TCP for another one."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from sqlalchemy import delete, insert, select

from services.rollout.shares import PROPAGATION_SECONDS, sync_endpoints
from services.runtime import stack
from services.serving.fork_client import listen
from services.store.database import endpoints
from tasks.core.sockets import UNIX_SCHEME, unix_socket_path
from tests.gateway.stack import gateway_client
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("gateway")


@contextmanager
def on_a_port(path: str) -> Iterator[str]:
    """The server of a Unix socket, on a TCP port: as one on another machine would be."""

    def pipe(source: socket.socket, target: socket.socket) -> None:
        with closing(target):
            while data := source.recv(65536):
                target.sendall(data)

    def accept() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(path)
            for pair in ((client, server), (server, client)):
                threading.Thread(target=pipe, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def statuses(settings, table, calls: int) -> set[int]:
    body = {"rows": [json.loads((table.folder / "golden.json").read_text())[0]["features"]]}
    with gateway_client(settings) as http:
        return {http.post("/v1/predict/small", json=body).status_code for _ in range(calls)}


def test_a_dead_address_among_several_costs_no_call(settings, store, table, tmp_path):
    """A socket whose process was killed, and one that is gone: the calls go to the process that lives."""
    stale = tmp_path / "stale.sock"
    listen(str(stale)).close()
    try:
        with store.changing() as connection:
            for path in (stale, tmp_path / "gone.sock"):
                connection.execute(insert(endpoints).values(digest=table.digest, address=f"{UNIX_SCHEME}{path}"))
        assert not wait_for(lambda: statuses(settings, table, 1) != {200}, 2 * PROPAGATION_SECONDS)
        assert statuses(settings, table, 20) == {200}
    finally:
        sync_endpoints(store, settings)
    with store.reading() as connection:
        left = set(connection.execute(select(endpoints.c.address).where(endpoints.c.digest == table.digest)).scalars())
    assert left == {stack.release_address(settings, table)}


def test_a_release_on_a_port_is_reached(settings, store, table):
    """As one of an earlier version, or on another machine, which the store names by host and port."""
    path = unix_socket_path(str(stack.release_address(settings, table)))
    with on_a_port(path) as address:
        try:
            with store.changing() as connection:
                connection.execute(delete(endpoints).where(endpoints.c.digest == table.digest))
                connection.execute(insert(endpoints).values(digest=table.digest, address=address))
            assert not wait_for(lambda: statuses(settings, table, 1) != {200}, 2 * PROPAGATION_SECONDS)
            assert statuses(settings, table, 5) == {200}
        finally:
            sync_endpoints(store, settings)
            assert not wait_for(lambda: statuses(settings, table, 1) != {200}, 2 * PROPAGATION_SECONDS)
