"""Promise: whatever a connection does, no honest call is lost, and the gateway's memory stays within bounds."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import hostile
from services.serving.process import free_port
from tasks.core.settings import Settings
from tasks.release.results import Release
from tests.gateway.stack import copy_routes, gateway, worker_processes

pytestmark = pytest.mark.xdist_group("gateway")


@pytest.fixture(scope="module")
def front(settings: Settings, table: Release, tmp_path_factory) -> Iterator[tuple[int, int]]:
    """The port of a gateway of its own before the releases that run, and the id of its process that answers."""
    folder = tmp_path_factory.mktemp("hostile")
    own = Settings(state=folder, gateway_port=free_port())
    copy_routes(settings, own)
    with gateway(own, own.gateway_port, folder / "log") as process:
        (worker,) = worker_processes(process.pid)
        yield own.gateway_port, worker.pid


def exchange(port: int, request: bytes, timeout: float = 15) -> bytes:
    """All that comes back until the gateway closes; nothing more is sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(request)
        return until_closed(connection)


def until_closed(connection: socket.socket) -> bytes:
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def error_of(response: bytes) -> tuple[int, dict]:
    """The status and the error, which has the same form as every other."""
    head, _, body = response.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


def test_honest_calls_beside_every_attack(front, table):
    """20 s of 1,100 half-open requests, endless heads and bodies, slow ones, unread answers: nothing is lost."""
    port, pid = front
    row = json.loads((table.folder / "golden.json").read_text())[0]["features"]
    calls, growth = hostile.beside_attacks(port, "/v1/predict/small", {"rows": [row]}, 20.0, pid)
    assert len(calls.seconds) == 20 * hostile.RATE
    assert not calls.lost
    assert growth < 50


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"a" * 17_000, 414),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 60_000, 431),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 33_000 + b"\r\n\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"a: b\r\n" * 101 + b"\r\n", 431),
        (b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: abc\r\n\r\n", 400),
        (b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1e9\r\n\r\n", 400),
        (b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n", 400),
        (b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_too_long_or_no_http_is_refused(front, request_, status):
    """At its limit, in the errors' form, and the connection ends; a response is not lost by the close."""
    begun = time.monotonic()
    found, error = error_of(exchange(front[0], request_))
    assert (found, error["type"]) == (status, "invalid_request_error")
    assert time.monotonic() - begun < 9


def test_what_is_within_the_limits_is_answered(front):
    """A long address, a long header and a hundred of them, in pieces, pipelined, and asking for another protocol."""
    port, _ = front
    host = b"Host: localhost\r\nConnection: close\r\n"
    assert b" 404 " in exchange(port, b"GET /" + b"a" * 16_000 + b" HTTP/1.1\r\n" + host + b"\r\n")
    assert b" 200 " in exchange(port, b"GET /healthz HTTP/1.1\r\n" + host + b"X: " + b"a" * 30_000 + b"\r\n\r\n")
    assert b" 200 " in exchange(port, b"GET /healthz HTTP/1.1\r\n" + host + b"a: b\r\n" * 98 + b"\r\n")
    one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\n" + host + b"\r\n"
    assert exchange(port, one * 9 + last).count(b"HTTP/1.1 200") == 10
    upgrade = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    assert b" 200 " in exchange(port, upgrade)
    with socket.create_connection(("127.0.0.1", port), timeout=15) as connection:
        for place in range(len(last)):
            connection.sendall(last[place : place + 1])
        assert b" 200 " in until_closed(connection)


def test_a_head_has_ten_seconds_from_the_first_moment(front):
    """Nothing, a part of a head, one that drips, blank lines, and a second request on a keep-alive connection."""
    port, _ = front
    whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    beginnings = {"nothing": b"", "part": whole[:-2], "blank": b"\r\n", "second": whole + whole[:-2]}
    begun = time.monotonic()
    connections = {name: socket.create_connection(("127.0.0.1", port), timeout=20) for name in beginnings}
    try:
        for name, beginning in beginnings.items():
            connections[name].sendall(beginning)
        connections["second"].recv(1)  # the first one was answered
        connections["second"].sendall(b"a: b\r\n")
        for _ in range(8):
            time.sleep(1)
            connections["part"].sendall(b"a: b\r\n")
        received = {name: until_closed(connection) for name, connection in connections.items()}
    finally:
        for connection in connections.values():
            connection.close()
    assert 8 < time.monotonic() - begun < 14
    assert received["nothing"] == b""
    for name in ("part", "blank", "second"):
        assert b" 408 " in received[name], name


def test_too_many_pipelined_requests_are_refused(front):
    one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert exchange(front[0], one * 1000).count(b"HTTP/1.1 200") < 1000


@pytest.mark.parametrize(
    "header",
    [b"", b"X-Hub-Signature-256: sha256=" + b"0" * 64 + b"\r\n", b"Expect: 100-continue\r\n"],
    ids=["unsigned", "signed", "expecting"],
)
def test_an_unsigned_webhook_body_is_not_read(front, header):
    """Not a byte of it is waited for, and a body that goes on ends with its connection."""
    head = b"POST /hooks/git HTTP/1.1\r\nHost: localhost\r\n" + header + b"Content-Length: 100000000\r\n\r\n"
    begun = time.monotonic()
    response = exchange(front[0], head)
    assert b"HTTP/1.1 403" in response
    assert b"100 Continue" not in response
    assert time.monotonic() - begun < 6


def test_a_body_after_its_answer_is_not_read_for_ever(front):
    with socket.create_connection(("127.0.0.1", front[0]), timeout=10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000000\r\n\r\n")
        begun = time.monotonic()
        with pytest.raises(ConnectionError):
            send_for(connection, 9)
    assert time.monotonic() - begun < 9


def send_for(connection: socket.socket, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        connection.sendall(b"a" * 65536)


def test_an_early_response_keeps_the_connection(front):
    """A client that ends its body after the answer goes on with the same connection."""
    with socket.create_connection(("127.0.0.1", front[0]), timeout=10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        assert b" 200 " in connection.recv(65536)
        time.sleep(0.3)
        connection.sendall(b"a" * 100_000 + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b" 200 " in until_closed(connection)


def test_limits_hold_without_the_log_growing(front, tmp_path_factory):
    """Closed connections are logged at most once a minute, with counts."""
    folder: Path = next(tmp_path_factory.getbasetemp().glob("hostile*"))
    lines = (folder / "log").read_text().splitlines()
    assert 1 <= sum("Connections ended" in line for line in lines) <= 5
    assert len(lines) < 40
