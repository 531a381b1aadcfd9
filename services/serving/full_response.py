"""A whole answer in OpenAI's form, put together from the events of a stream."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from tasks.language.messages import ASSISTANT, chat_message

DONE = b"data: [DONE]"


class BrokenStreamError(Exception):
    """An engine that ends a stream with an error, in its own words."""


def full_response(events: bytes) -> dict[str, Any]:
    """The chat completion that the events of a stream with its usage are the parts of.

    Raises: BrokenStreamError when the stream says that it failed, or lacks its end.
    """
    answer: dict[str, Any] = {}
    texts: list[str] = []
    logprobs: list[Any] = []
    finish = None
    for line in events.splitlines():
        if not line.startswith(b"data: ") or line == DONE:
            continue
        event = json.loads(line[len(b"data: ") :])
        if "error" in event:
            raise BrokenStreamError(error_message(line[len(b"data: ") :]))
        answer |= {name: value for name, value in event.items() if name != "choices" and value is not None}
        for choice in event.get("choices", ()):
            texts.append(choice["delta"].get("content") or "")
            logprobs += (choice.get("logprobs") or {}).get("content") or ()
            finish = choice.get("finish_reason") or finish
    if not answer or DONE not in events[-32:]:
        raise BrokenStreamError("The engine ended within its answer.")
    choice = {"index": 0, "finish_reason": finish, "message": chat_message(ASSISTANT, "".join(texts))}
    if logprobs:
        choice["logprobs"] = {"content": logprobs}
    return {**answer, "object": "chat.completion", "choices": [choice]}


def error_message(body: bytes) -> str:
    """The message of an engine's error; what stands before an engine elsewhere may have a form of its own."""
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)["error"]["message"])
    return body.decode(errors="replace")[:500]
