"""A streamed answer of an engine, forwarded chunk by chunk."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack
from typing import Protocol

import aiohttp
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class EventSource(Protocol):
    """The open response of an engine."""

    @property
    def content(self) -> EventBytes: ...
    def close(self) -> None: ...


class EventBytes(Protocol):
    """Its bytes, as they arrive."""

    def iter_any(self) -> AsyncIterator[bytes]: ...


class EventStream(StreamingResponse):
    """Server-sent events; a stream that the engine breaks off ends with an error in OpenAI's form.

    first: the bytes already read; slot: closed at the end, as is the engine's response.
    """

    def __init__(self, first: bytes, source: EventSource, slot: ExitStack, headers: Mapping[str, str]) -> None:
        super().__init__(self._events(), media_type="text/event-stream", headers=headers)
        self._first, self._source, self._slot = first, source, slot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._source.close()  # also when the client disconnects: this ends the engine's work
            self._slot.close()

    async def _events(self) -> AsyncIterator[bytes]:
        try:
            yield self._first
            async for chunk in self._source.content.iter_any():
                yield chunk
        except TimeoutError:
            yield _error("The answer was not complete in time.", "timeout")
        except aiohttp.ClientError:
            yield _error("The engine ended within its answer.", "model_died")


def _error(message: str, code: str) -> bytes:
    body = {"error": {"message": message, "type": "server_error", "param": None, "code": code}}
    return b"data: " + json.dumps(body).encode() + b"\n\n"
