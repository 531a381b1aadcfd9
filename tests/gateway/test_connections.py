"""A connection's own memory: what clients open and close leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from services.gateway import connections
from services.gateway.connections import LimitedHttpProtocol


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(
    "request_", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"no request\r\n\r\n"]
)
def test_a_closed_connection_is_freed_at_once(
    without_collector: None, monkeypatch: pytest.MonkeyPatch, request_: bytes
) -> None:
    """Silent, half open, answered or refused: none waits for the garbage collector, which comes rarely."""
    monkeypatch.setattr(connections, "LINGER_SECONDS", 0.01)  # a refused one is closed after it
    config = uvicorn.Config(app, log_level="warning", lifespan="off")
    config.load()
    state, alive, opened = ServerState(), weakref.WeakSet[LimitedHttpProtocol](), 0

    def connect() -> LimitedHttpProtocol:
        nonlocal opened
        opened += 1
        protocol = LimitedHttpProtocol(config, state, {})
        alive.add(protocol)
        return protocol

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(request_)
        if request_.endswith(b"\r\n\r\n"):
            assert await reader.read(1024)
        await asyncio.sleep(0.05)
        writer.transport.abort()
        await asyncio.sleep(0.1)
        assert opened == 1
        assert not list(alive)
        server.close()

    asyncio.run(serve())
