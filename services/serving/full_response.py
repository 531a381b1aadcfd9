"""A complete answer in OpenAI's form, assembled from the events of a stream."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from tasks.language.messages import ASSISTANT, chat_message

DONE = b"data: [DONE]"


class BrokenStreamError(Exception):
    """A stream that the engine ended with an error; its message is the engine's."""


def full_response(events: bytes) -> dict[str, Any]:
    """The chat completion of a stream's events, with its usage.

    Raises: BrokenStreamError when the stream contains an error, or lacks its end.
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


def join_responses(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One response with the answers as its choices; its usage counts the prompt once."""
    choices = [{**answer["choices"][0], "index": index} for index, answer in enumerate(answers)]
    usage = dict(answers[0].get("usage") or {})
    if usage:
        usage["completion_tokens"] = sum(answer["usage"]["completion_tokens"] for answer in answers)
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
    return {**answers[0], "choices": choices, "usage": usage}


def error_message(body: bytes) -> str:
    """The message of an engine's error; a proxy of a remote engine may use another form."""
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)["error"]["message"])
    return body.decode(errors="replace")[:500]
