"""Server-sent events of a language model's stream: splits them, counts usage, extracts text."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import orjson

from services.gateway.call import MAX_LOGGED, MAX_READ, Call
from services.store.api_error import ApiError

END = b"\n\n"
DATA = b"data: "
DONE_EVENT = DATA + b"[DONE]"
MAX_EVENT = 1_000_000  # bytes


async def split_events(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """Yield whole events, all those together that have arrived.

    Raises: ValueError for an event longer than MAX_EVENT.
    """
    buffer = first
    while True:
        if (end := buffer.rfind(END)) >= 0:
            yield buffer[: end + len(END)]
            buffer = buffer[end + len(END) :]
        if len(buffer) > MAX_EVENT:
            raise ValueError("an event without an end")
        piece = await anext(pieces, b"")
        if not piece:
            break
        buffer += piece
    if buffer.strip():
        yield buffer


def count_usage(call: Call, events: bytes, wants_usage: bool) -> bytes:
    """Record the events' usage; drop an event with nothing else unless the client asked for usage."""
    if b'"usage":' not in events:
        call.tokens_out += events.count(b'"content":')
        return events
    remaining = []
    for event in events.split(END):
        if b'"usage":' in event and isinstance(usage := (message := _parse_event(event)).get("usage"), dict):
            call.record_usage(usage)
            if not wants_usage and not message.get("choices"):
                continue
        elif b'"content":' in event:
            call.tokens_out += 1
        remaining.append(event)
    return END.join(remaining)


def error_event(body: dict[str, Any]) -> bytes:
    return DATA + orjson.dumps(body) + END


def loggable_body(call: Call, body: bytes) -> bytes:
    """Return what the log reads of a response: for a chat, streamed or whole, the text of each choice."""
    if call.interface != "chat":
        return body[:MAX_READ]
    is_stream = body.startswith(DATA)
    parts = [_parse_event(event) for event in body.split(END)] if is_stream else [_parse_object(body)]
    choices: dict[Any, list[str]] = {}
    try:
        for part in parts:
            for choice in part.get("choices") or ():
                content = (choice.get("delta" if is_stream else "message") or {}).get("content") or ""
                choices.setdefault(choice.get("index"), []).append(content)
        return "\n".join("".join(texts) for texts in choices.values()).encode()[:MAX_READ]
    except (AttributeError, TypeError):  # not in OpenAI's form: the call must be settled all the same
        return body[:MAX_READ]


def usage_of(body: bytes) -> Any:
    """The `usage` of a whole response. Raises: ApiError when it is not a JSON object."""
    response = _parse_object(body)
    if not response:
        raise ApiError(502, "The model's response is not a JSON object.", code="model_failed")
    return response.get("usage")


def predicted_classes(body: bytes) -> dict[str, int | str]:
    """The predicted classes of a tabular response by example_id; empty for regression and for very many rows."""
    if len(body) > MAX_LOGGED:
        return {}
    rows = [row for row in _parse_object(body).get("predictions") or () if "score" in row]
    return {row["example_id"] or "": row["prediction"] for row in rows if row["example_id"] or len(rows) == 1}


def _parse_event(event: bytes) -> dict[str, Any]:
    return _parse_object(event.removeprefix(DATA)) if event.startswith(DATA) else {}


def _parse_object(text: bytes) -> dict[str, Any]:
    """Parse a JSON object; return an empty one for anything else."""
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return message if isinstance(message, dict) else {}
