"""Rules where no gateway stands before a release: batch answers, and the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tasks.guard.engine import GuardEngine
from tasks.guard.results import Context
from tasks.guard.stream import GuardedText
from tasks.language.messages import USER


def guard_messages(engine: GuardEngine, messages: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """The messages as the rules pass them, and the text of a refusal; empty: there is none."""
    passed, refusal = [], ""
    for message in messages:
        result = engine.check(str(message.get("content") or ""), "input")
        refusal = refusal or (result.message if result.action in ("refuse", "route") else "")
        passed.append({**message, "content": result.text})
    turns = [str(message.get("content") or "") for message in messages if message.get("role") == USER]
    if len(turns) > 1 and not refusal:
        together = engine.check(" ".join(turns), "input")
        refusal = together.message if together.action == "refuse" else ""
    return passed, refusal


def guard_answer(engine: GuardEngine, text: str, passages: Sequence[str] = (), citations: int = 0) -> str:
    """An answer as the rules pass it, or the text of the refusal."""
    context = Context(passages=tuple(passages), citations=citations)
    result = engine.check(text, "output", context=context)
    return result.message if result.action == "refuse" else result.text


def guard_pieces(engine: GuardEngine, pieces: Iterable[str]) -> Iterator[str]:
    """A stream as the rules pass it; a refusal ends it."""
    text = GuardedText(engine)
    for piece in pieces:
        if passed := text.push(piece):
            yield passed
        if text.refusal:
            break
    if rest := text.finish():
        yield rest
    if text.refusal:
        yield text.refusal.message
