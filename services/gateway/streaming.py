"""A streaming response that closes its source when the client disconnects or stops reading."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

EVENT_STREAM = "text/event-stream"
SEND_TIMEOUT = 30.0  # seconds in which a client must take a piece


class EventStreamResponse(Response):
    """Server-sent events."""

    media_type = EVENT_STREAM

    def __init__(self, first: bytes, source: AsyncGenerator[bytes], headers: Mapping[str, str]) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no", **headers})
        del self.headers["content-length"]
        self._first, self._source = first, source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send(send))
        disconnect = asyncio.create_task(_wait_for_disconnect(receive))
        try:
            await asyncio.wait({sending, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, disconnect):
                task.cancel()
            await asyncio.wait({sending, disconnect})
        if not sending.cancelled() and (error := sending.exception()) and not isinstance(error, OSError):
            raise error

    async def _send(self, send: Send) -> None:
        async with aclosing(self._source) as source:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await _send_piece(send, self._first)
            async for piece in source:
                await _send_piece(send, piece)
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_piece(send: Send, piece: bytes) -> None:
    async with asyncio.timeout(SEND_TIMEOUT):  # a TimeoutError is an OSError: the client is dropped
        await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
