"""Chat messages in OpenAI's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

ROLES = SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
Role = Literal["system", "user", "assistant"]
Messages = Sequence[dict[str, str]]  # the turns of a conversation


def user_message(messages: Messages) -> str:
    """The content of the user's messages."""
    return "\n".join(each["content"] for each in messages if each["role"] == USER)


def chat_message(role: str, content: str) -> dict[str, str]:
    """A message."""
    return {"role": role, "content": content}
