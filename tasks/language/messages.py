"""Conversations in OpenAI's form: who says what."""

from __future__ import annotations

from collections.abc import Sequence

ROLES = SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
Messages = Sequence[dict[str, str]]  # turns


def user_message(messages: Messages) -> str:
    """What the user says in them."""
    return "\n".join(each["content"] for each in messages if each["role"] == USER)


def chat_message(role: str, content: str) -> dict[str, str]:
    """What one of them says."""
    return {"role": role, "content": content}
