"""The messages of a user's row: a text, chat messages, or chat messages with parts; nothing is dropped unnoticed."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from tasks.language.messages import SYSTEM, USER, chat_message

INPUT_ROLES = (USER, SYSTEM, "developer", "tool")
TEXT_PARTS = ("text", "input_text", "output_text")
IGNORED_KEYS = {"role", "content", "name", "refusal", "annotations", "audio", "weight", "id", "created", "timestamp"}


def conversation(value: Any) -> list[dict[str, str]]:
    """The messages in a cell: a text is one message of the user.

    Raises: ValueError for a message that can't be kept whole: tool calls, or parts that are not text.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError):
            value = _chat(json.loads(value)) or value
    if not isinstance(value, list):
        return [chat_message(USER, content_of(value))]
    return [_message(number, entry if isinstance(entry, dict) else {}) for number, entry in enumerate(value, 1)]


def content_of(value: Any) -> str:
    """The text of a cell; for a list of messages, the last one's; an object as JSON, to the letter."""
    if isinstance(value, list) and value and isinstance(value[-1], dict) and "content" in value[-1]:
        value = value[-1]["content"]
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, default=str)


def system_of(messages: list[dict[str, str]]) -> str:
    """The text of the system messages; empty without one."""
    return "\n".join(each["content"] for each in messages if each["role"] in (SYSTEM, "developer")).strip()


def _chat(value: Any) -> list[Any] | None:
    """A list of messages; None for another value, such as a text that happens to be JSON."""
    is_chat = isinstance(value, list) and value and all(isinstance(each, dict) and "role" in each for each in value)
    return value if is_chat else None


def _message(number: int, entry: dict[str, Any]) -> dict[str, str]:
    if calls := [key for key in ("tool_calls", "function_call") if entry.get(key)]:
        raise ValueError(f"message {number} has {calls[0]}, which a pair can't hold: write the call as the answer")
    if odd := [key for key in entry if key not in IGNORED_KEYS and entry[key] not in (None, "", [])]:
        raise ValueError(f"message {number} has {', '.join(odd)} beside role and content")
    content = entry.get("content")
    if isinstance(content, list):
        content = "".join(_text_of_part(number, part) for part in content)
    return {"role": str(entry.get("role") or ""), "content": content_of(content)}


def _text_of_part(number: int, part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and isinstance(part.get("text"), str) and part.get("type", "text") in TEXT_PARTS:
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else part
    raise ValueError(f"message {number} has a part that is not text: {kind!r}")
