"""A language model's stream: whole events out of bytes, and what they say of tokens and text."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import orjson

from services.gateway.call import LOGGED, READ, Call
from services.store.api_error import ApiError

END = b"\n\n"
DATA = b"data: "
DONE_EVENT = DATA + b"[DONE]"
LONGEST = 1_000_000  # bytes of one event; more is no chat


async def split_events(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
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


def count_usage(call: Call, events: bytes, wants_usage: bool) -> bytes:
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
    return DATA + orjson.dumps(body) + END


def loggable_body(call: Call, answered: bytes) -> bytes:
    """What is read for the log of an answer: of a chat, streamed or whole, what was said, each choice by itself."""
    if call.interface != "chat":
        return answered[:READ]
    is_stream = answered.startswith(DATA)
    parts = [_read(event) for event in answered.split(END)] if is_stream else [_object(answered)]
    choices: dict[Any, list[str]] = {}
    try:
        for part in parts:
            for choice in part.get("choices") or ():
                content = (choice.get("delta" if is_stream else "message") or {}).get("content") or ""
                choices.setdefault(choice.get("index"), []).append(content)
        return "\n".join("".join(texts) for texts in choices.values()).encode()[:READ]
    except (AttributeError, TypeError):  # of another form than OpenAI's: the call must be settled all the same
        return answered[:READ]


def usage_of(answered: bytes) -> Any:
    """What a whole answer says of the tokens it used. Raises: Refusal when it is no JSON object."""
    answer = _object(answered)
    if not answer:
        raise ApiError(502, "The model's answer is no JSON object.", code="model_failed")
    return answer.get("usage")


def classes_of(answered: bytes) -> dict[str, int | str]:
    """The classes that a table's answer gives its rows, by example_id; none of numbers, nor of very many rows."""
    if len(answered) > LOGGED:
        return {}
    rows = [row for row in _object(answered).get("predictions") or () if "score" in row]
    return {row["example_id"] or "": row["prediction"] for row in rows if row["example_id"] or len(rows) == 1}


def _read(event: bytes) -> dict[str, Any]:
    return _object(event.removeprefix(DATA)) if event.startswith(DATA) else {}


def _object(text: bytes) -> dict[str, Any]:
    """The object that a text is; of anything else, an empty one."""
    try:
        said = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}
