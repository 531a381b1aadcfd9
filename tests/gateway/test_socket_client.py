"""Promise: a call over a release's Unix socket ends with its response, or an error that says whether to try again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from services.gateway import socket_client
from services.gateway.socket_client import ConnectionLost, SocketClient, SocketResponse, Unreachable

OK = b"HTTP/1.1 200 OK\r\nX-Word: yes\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 503 Busy\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


class Server:
    """Answers each request with the next of its responses; None closes the connection without one."""

    def __init__(self, *responses: bytes | None) -> None:
        self.responses, self.requests = [*responses], list[bytes]()
        self.connections, self.ended = 0, asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                if (response := self.responses.pop(0)) is None:
                    break
                for start in range(0, len(response), 7):  # in pieces
                    writer.write(response[start : start + 7])
                    await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        finally:
            self.ended.set()
            writer.close()


@asynccontextmanager
async def running(path: Path, *responses: bytes | None) -> AsyncIterator[tuple[Server, SocketClient]]:
    server, client = Server(*responses), SocketClient()
    async with await asyncio.start_unix_server(server.serve, path / "s.sock"):
        yield server, client
        client.close()


async def post(client: SocketClient, path: Path, timeout: float = 5.0) -> SocketResponse:
    return await client.post(str(path / "s.sock"), "/predict", {"x-labels": "a"}, b"[1]", timeout)


@in_loop
async def test_two_calls_take_one_connection(tmp_path):
    """Whole and chunked responses are read to their end, and headers by their lower-case names."""
    async with running(tmp_path, OK, CHUNKED) as (server, client):
        assert await post(client, tmp_path) == SocketResponse(200, {"x-word": "yes", "content-length": "5"}, b"hello")
        second = await post(client, tmp_path)
    assert (second.status, second.body, server.connections) == (503, b"hello", 1)
    assert server.requests[0].startswith(b"POST /predict HTTP/1.1\r\nhost: localhost\r\n")
    assert b"x-labels: a\r\n" in server.requests[0]
    assert server.requests[0].endswith(b"\r\n\r\n[1]")


@in_loop
async def test_calls_at_once_take_connections_of_their_own(tmp_path):
    async with running(tmp_path, *[OK] * 8) as (server, client):
        responses = await asyncio.gather(*(post(client, tmp_path) for _ in range(8)))
    assert {response.body for response in responses} == {b"hello"}
    assert server.connections == 8


@pytest.mark.parametrize("closing", [b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello"])
@in_loop
async def test_a_connection_that_ends_is_not_used_again(tmp_path, closing):
    async with running(tmp_path, closing, OK) as (server, client):
        await post(client, tmp_path)
        await post(client, tmp_path)
    assert server.connections == 2


@in_loop
async def test_an_old_connection_is_not_used_again(tmp_path, monkeypatch):
    """The server may close it just as the request is sent."""
    monkeypatch.setattr(socket_client, "KEEP_ALIVE", 0.0)
    async with running(tmp_path, OK, OK) as (server, client):
        await post(client, tmp_path)
        await post(client, tmp_path)
    assert server.connections == 2


@in_loop
async def test_a_dead_socket_is_unreachable(tmp_path):
    with pytest.raises(Unreachable):
        await post(SocketClient(), tmp_path)


@pytest.mark.parametrize("response", [None, b"220 mail.example\r\n\r\n"], ids=["closed", "not HTTP"])
@in_loop
async def test_a_lost_connection_is_an_error(tmp_path, response):
    async with running(tmp_path, response, OK) as (_, client):
        with pytest.raises(ConnectionLost):
            await post(client, tmp_path)
        assert (await post(client, tmp_path)).body == b"hello"


@in_loop
async def test_a_late_response_is_a_timeout(tmp_path):
    """The connection is closed: its response must not answer the next call."""
    async with running(tmp_path, OK[:-1], OK) as (server, client):
        with pytest.raises(TimeoutError):
            await post(client, tmp_path, 0.1)
        assert (await post(client, tmp_path)).body == b"hello"
    assert server.connections == 2


@in_loop
async def test_a_cancelled_call_ends_its_connection(tmp_path):
    """So that the release does not finish what nobody reads."""
    async with running(tmp_path, OK[:-1]) as (server, client):
        call = asyncio.create_task(post(client, tmp_path))
        while not server.requests:
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(server.ended.wait(), 5)
