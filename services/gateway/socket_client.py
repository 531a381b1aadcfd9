"""A lean HTTP client for small calls over Unix sockets: a third of aiohttp's processor time, which every call pays."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass

import httptools

KEEP_ALIVE = 3.0  # seconds; less than the 5 of the servers, which must not close a connection while we send


class Unreachable(ConnectionError):
    """Nothing listens on the socket."""


class ConnectionLost(ConnectionError):
    """The connection ended within the call."""


@dataclass(frozen=True)
class SocketResponse:
    """A whole response; the names of its headers are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes


class SocketClient:
    """Connections that are kept for the next call, by the path of their socket."""

    def __init__(self) -> None:
        self._idle: dict[str, list[_Connection]] = defaultdict(list)

    async def post(
        self, socket: str, path: str, headers: dict[str, str], body: bytes, timeout: float
    ) -> SocketResponse:
        """Send a request and return the whole response.

        Raises: Unreachable, ConnectionLost, TimeoutError.
        """
        connection = self._take(socket) or await _connect(socket)
        try:
            response = await connection.request(_head(path, headers, len(body)) + body, timeout)
        except BaseException:
            connection.transport.abort()  # of a cancelled call, too: its release need not finish it
            raise
        if connection.is_reusable:
            connection.idle_since = time.monotonic()
            self._idle[socket].append(connection)
        return response

    def close(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.transport.abort()
        self._idle.clear()

    def _take(self, socket: str) -> _Connection | None:
        connections, oldest = self._idle[socket], time.monotonic() - KEEP_ALIVE
        while connections:
            connection = connections.pop()  # the last one that was used
            if not connection.transport.is_closing() and connection.idle_since > oldest:
                return connection
            connection.transport.abort()
        return None


class _Connection(asyncio.Protocol):
    """One connection, with one call at a time."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.is_reusable = False
        self._response: asyncio.Future[SocketResponse] | None = None
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    async def request(self, content: bytes, timeout: float) -> SocketResponse:
        self._headers, self._pieces, self.is_reusable = {}, [], False
        self._parser = httptools.HttpResponseParser(self)
        response: asyncio.Future[SocketResponse] = self._loop.create_future()
        self._response = response
        timer = self._loop.call_later(timeout, self._fail, TimeoutError())
        try:
            if self.transport.is_closing():
                raise ConnectionLost
            self.transport.write(content)
            return await response
        finally:
            timer.cancel()
            self._response = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._response is None:  # nothing was requested
            self.transport.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail(ConnectionLost("Its response is not HTTP."))

    def connection_lost(self, _: Exception | None) -> None:
        self._fail(ConnectionLost())

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        self.is_reusable = self._parser.should_keep_alive()
        if self._response is not None and not self._response.done():
            status = self._parser.get_status_code()
            self._response.set_result(SocketResponse(status, self._headers, b"".join(self._pieces)))

    def _fail(self, error: Exception) -> None:
        if self._response is not None and not self._response.done():
            self._response.set_exception(error)


async def _connect(socket: str) -> _Connection:
    try:
        _, connection = await asyncio.get_running_loop().create_unix_connection(_Connection, socket)
    except OSError as error:
        raise Unreachable(socket) from error
    return connection


def _head(path: str, headers: dict[str, str], length: int) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{lines}"
        f"content-length: {length}\r\n\r\n"
    ).encode("latin-1")
