"""The stream of a model's server, event by event: each is read, and names the release."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from tasks.language.chat_completion import read_chunk
from tasks.language.remote_engine import error_text

if TYPE_CHECKING:
    import aiohttp

MAX_EVENT = 1_000_000  # bytes
DONE = b"data: [DONE]\n\n"


class UpstreamStream:
    """It has what a stream's response reads of an aiohttp response: `content.iter_any` and `close`."""

    def __init__(self, response: aiohttp.ClientResponse, tag: str) -> None:
        self._response, self._tag = response, tag
        self._events = self._read()

    @property
    def content(self) -> UpstreamStream:
        return self

    def iter_any(self) -> AsyncIterator[bytes]:
        """The events after the first."""
        return self._rest()

    def close(self) -> None:
        self._response.close()

    async def first(self) -> bytes:
        """Raises: ValueError when the server sends something else than a stream of a chat."""
        async for event in self._events:
            return event
        raise ValueError("It has no event.")

    async def _rest(self) -> AsyncIterator[bytes]:
        try:
            async for event in self._events:
                yield event
        except ValueError as error:
            yield _error_event(f"The model's server broke off its answer. {error}")

    async def _read(self) -> AsyncIterator[bytes]:
        buffer, finished = b"", False
        async for piece in self._response.content.iter_any():
            *lines, buffer = (buffer + piece).replace(b"\r\n", b"\n").split(b"\n")
            if len(buffer) > MAX_EVENT:
                raise ValueError("It sends an event without an end.")
            for line in lines:
                if not line.startswith(b"data:"):
                    if line.strip() and not line.startswith((b":", b"event:", b"id:", b"retry:")):
                        raise ValueError(f"It begins {line[:100].decode(errors='replace')!r}.")
                    continue
                data = line[len(b"data:") :].strip()
                if data == b"[DONE]":
                    yield DONE
                    return
                if b'"error"' in data and "error" in json.loads(data):
                    raise ValueError(error_text(data))
                chunk = read_chunk(data)
                finished = finished or any(choice.finish_reason for choice in chunk.choices)
                yield self._named(data)
        if not finished:
            raise ValueError("It ended within its answer.")
        yield DONE

    def _named(self, data: bytes) -> bytes:
        event = {**json.loads(data), "model": self._tag}
        return b"data: " + json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def _error_event(message: str) -> bytes:
    body = {"error": {"message": message, "type": "server_error", "param": None, "code": "model_failed"}}
    return b"data: " + json.dumps(body).encode() + b"\n\n"
