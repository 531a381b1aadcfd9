"""A response that ends its source when its client hangs up or no longer reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

EVENTS = "text/event-stream"
SLOW = 30.0  # seconds that a client may take to take a piece


class EventStreamResponse(Response):
    """Server-sent events."""

    media_type = EVENTS

    def __init__(self, first: bytes, source: AsyncGenerator[bytes], headers: Mapping[str, str]) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no", **headers})
        del self.headers["content-length"]
        self._first, self._source = first, source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.wait({sending, leaving})
        if not sending.cancelled() and (error := sending.exception()) and not isinstance(error, OSError):
            raise error

    async def _send(self, send: Send) -> None:
        async with aclosing(self._source) as source:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await _give(send, self._first)
            async for piece in source:
                await _give(send, piece)
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _give(send: Send, piece: bytes) -> None:
    async with asyncio.timeout(SLOW):  # a TimeoutError is an OSError: the client is given up
        await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
