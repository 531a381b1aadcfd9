"""The texts of requests and responses in OpenAI's form, as guardrails read and replace them; and refusals."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from services.gateway.call import Call
from services.store.api_error import ApiError
from tasks.guard.config import Stage
from tasks.guard.results import Conversation
from tasks.language.messages import ASSISTANT, USER

CONTENT_FILTER = "content_filter"


@dataclass(frozen=True)
class TextPlace:
    """A text within a JSON value, which can be replaced."""

    container: Any
    key: Any
    stage: Stage
    of_user: bool = False

    @property
    def text(self) -> str:
        return str(self.container[self.key])

    def replace(self, text: str) -> None:
        self.container[self.key] = text


class GuardRefusal(ApiError):
    """A request that the rules refuse: 400, or for a chat an answer of 200 with the refusal."""

    def __init__(self, message: str, *, is_chat: bool) -> None:
        super().__init__(200 if is_chat else 400, message, code=CONTENT_FILTER)


def request_texts(interface: str, request: Any) -> Iterator[TextPlace]:
    """The texts of a request that reach the release."""
    if not isinstance(request, dict):
        return
    if interface == "chat":
        for message in request.get("messages") or ():
            if isinstance(message, dict):
                yield from message_texts(message)
        for name in ("tools", "response_format"):
            yield from _strings(request, name, "tools")
    elif interface == "embeddings":
        yield from _strings(request, "input", "input")
    elif interface == "search":
        yield from _strings(request, "query", "input")
    else:
        yield from _strings(request, "rows", "input")


def message_texts(message: dict[str, Any], stage: Stage = "input") -> Iterator[TextPlace]:
    """The texts of a message: what it says, and the arguments of its tool calls; a tool's result is of a tool."""
    role = message.get("role")
    own: Stage = "tools" if role in ("tool", "function") else stage
    content = message.get("content")
    if isinstance(content, str):
        yield TextPlace(message, "content", own, role == USER)
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield TextPlace(part, "text", own, role == USER)
    for name in ("refusal", "reasoning_content", "reasoning", "name"):
        if isinstance(message.get(name), str):
            yield TextPlace(message, name, own)
    for called in (*(message.get("tool_calls") or ()), message):
        function = called.get("function") if called is not message else message.get("function_call")
        if isinstance(function, dict):
            yield from (TextPlace(function, key, "tools") for key in ("name", "arguments") if _is_text(function, key))


def conversation_of(request: dict[str, Any]) -> Conversation:
    """The messages of a request, counted."""
    messages = [each for each in request.get("messages") or () if isinstance(each, dict)]
    called = [orjson.dumps(each.get("function")) for m in messages for each in m.get("tool_calls") or () if each]
    return Conversation(
        turns=sum(message.get("role") == USER for message in messages),
        characters=sum(len(place.text) for message in messages for place in message_texts(message)),
        tool_calls=len(called),
        repeated_calls=max(Counter(called).values(), default=0),
    )


def response_choices(response: Any) -> list[dict[str, Any]]:
    """The choices of a whole chat response."""
    choices = response.get("choices") if isinstance(response, dict) else None
    return [each for each in choices or () if isinstance(each, dict) and isinstance(each.get("message"), dict)]


def refuse_choice(choice: dict[str, Any], message: str) -> None:
    """Replace the answer of a choice by a refusal."""
    choice["message"] = {"role": ASSISTANT, "content": None, "refusal": message}
    choice["finish_reason"] = CONTENT_FILTER
    choice.pop("logprobs", None)


def refusal_completion(call: Call, message: str) -> dict[str, Any]:
    """A response to a chat that no model answered."""
    choice: dict[str, Any] = {"index": 0}
    refuse_choice(choice, message)
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return {**_frame(call, "chat.completion"), "choices": [choice], "usage": usage}


def refusal_events(call: Call, message: str, *, wants_usage: bool) -> list[dict[str, Any]]:
    """The same as the events of a stream."""
    frame = _frame(call, "chat.completion.chunk")
    events = [
        {**frame, "choices": refusal_deltas(0, message)[:1]},
        {**frame, "choices": refusal_deltas(0, message)[1:]},
    ]
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return [*events, {**frame, "choices": [], "usage": usage}] if wants_usage else events


def refusal_deltas(index: int, message: str) -> list[dict[str, Any]]:
    """The two last deltas of a choice that is refused."""
    return [
        {"index": index, "delta": {"role": ASSISTANT, "refusal": message}, "finish_reason": None},
        {"index": index, "delta": {}, "finish_reason": CONTENT_FILTER},
    ]


def _frame(call: Call, kind: str) -> dict[str, Any]:
    tag = call.share.route.tag
    return {"id": f"chatcmpl-{secrets.token_hex(16)}", "object": kind, "created": int(time.time()), "model": tag}


def _is_text(container: dict[str, Any], key: str) -> bool:
    return isinstance(container.get(key), str)


def _strings(container: Any, key: Any, stage: Stage) -> Iterator[TextPlace]:
    """All texts within a value, at any depth."""
    pending = [(container, key)] if key in container else []
    while pending:
        holder, at = pending.pop()
        value = holder[at]
        if isinstance(value, str):
            yield TextPlace(holder, at, stage)
        elif isinstance(value, dict):
            pending += ((value, name) for name in reversed(list(value)))
        elif isinstance(value, list):
            pending += ((value, index) for index in reversed(range(len(value))))
