"""Limits of a conversation: turns, characters, tool calls, and the same call again and again."""

from __future__ import annotations

from tasks.guard.config import ConversationRule
from tasks.guard.results import Finding
from tasks.guard.subject import Subject


class ConversationCheck:
    """Finds a conversation beyond a limit; it reads the context, which has all messages of the request."""

    def __init__(self, rule: ConversationRule) -> None:
        self._limits = {
            "turns": rule.max_turns,
            "characters": rule.max_characters,
            "tool_calls": rule.max_tool_calls,
            "repeated_calls": rule.max_repeated_calls,
        }

    def find(self, subject: Subject) -> Finding | None:
        conversation = subject.context.conversation
        if conversation is None:
            return None
        for name, limit in self._limits.items():
            if limit is not None and (count := getattr(conversation, name)) > limit:
                return Finding(score=float(count), note=f"{count:,} {name.replace('_', ' ')} of {limit:,}")
        return None
