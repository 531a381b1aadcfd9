"""A language model's stream: whole events out of bytes, and what they say of tokens and text."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Any

import orjson

from tasks.gateway.call import Call

END = b"\n\n"
DONE_EVENT = b"data: [DONE]"
LONGEST = 1_000_000  # bytes of one event; more is no chat


async def whole_events(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """Events with their ends, as many together as have arrived.

    Raises: ValueError for an event that does not end.
    """
    left = first
    while True:
        if (end := left.rfind(END)) >= 0:
            yield left[: end + len(END)]
            left = left[end + len(END) :]
        if len(left) > LONGEST:
            raise ValueError("an event without an end")
        piece = await anext(pieces, b"")
        if not piece:
            break
        left += piece
    if left.strip():
        yield left


def counted(call: Call, events: bytes, wants_usage: bool) -> bytes:
    """Take over what the events say of tokens; an event that tells nothing else goes only to who asked for it."""
    if b'"usage":' not in events:
        call.tokens_out += events.count(b'"content":')
        return events
    kept = []
    for event in events.split(END):
        if b'"usage":' in event and isinstance(usage := (said := _read(event)).get("usage"), dict):
            call.used(usage)
            if not wants_usage and not said.get("choices"):
                continue
        elif b'"content":' in event:
            call.tokens_out += 1
        kept.append(event)
    return END.join(kept)


def error_event(body: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + END


def text_of(streamed: bytes) -> bytes:
    """What a stream said, put together."""
    return "".join(_pieces(streamed.split(END))).encode()


def _pieces(events: Iterable[bytes]) -> Iterable[str]:
    for event in events:
        for choice in _read(event).get("choices") or ():
            yield (choice.get("delta") or {}).get("content") or ""


def _read(event: bytes) -> dict[str, Any]:
    if not event.startswith(b"data: ") or event == DONE_EVENT:
        return {}
    try:
        said = orjson.loads(event[6:])
    except orjson.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}
