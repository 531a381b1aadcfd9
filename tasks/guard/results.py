"""What a check of a text finds, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.guard.config import Action, Mode, Stage
from tasks.guard.redaction import Span

__all__ = ["Context", "Finding", "GuardResult", "Outcome", "Span"]


@dataclass(frozen=True)
class Conversation:
    """The messages of a request, counted."""

    turns: int = 0  # of the user
    characters: int = 0
    tool_calls: int = 0
    repeated_calls: int = 0  # the most equal ones


@dataclass(frozen=True)
class Context:
    """What a text belongs to; checks that need more than the text read it."""

    passages: tuple[str, ...] = ()  # that the answer comes from
    citations: int = 0  # of the answer
    conversation: Conversation | None = None
    offset: int = 0  # characters before the text, of a stream


@dataclass(frozen=True)
class Finding:
    """What a check found; without spans it concerns the whole text."""

    spans: tuple[Span, ...] = ()
    score: float | None = None
    note: str = ""  # why, in a few words, without the text itself


@dataclass(frozen=True)
class Outcome:
    """What one rule did to one text."""

    rule: str  # its label
    stage: Stage
    action: Action
    mode: Mode
    fired: bool
    spans: tuple[Span, ...] = ()
    score: float | None = None
    note: str = ""
    ms: float = 0.0
    error: str = ""  # why the text is unchecked by this rule

    @property
    def is_enforced(self) -> bool:
        return self.fired and self.mode == "enforce"


@dataclass(frozen=True)
class GuardResult:
    """What follows from all rules of a stage; `text` is the text after redaction."""

    action: Action
    text: str
    outcomes: tuple[Outcome, ...] = ()
    message: str = ""  # of a refusal
    to: str = ""  # of a route
    restored: tuple[tuple[str, str], ...] = ()  # placeholders with the values that they stand for

    @property
    def fired(self) -> tuple[Outcome, ...]:
        """The outcomes of rules that found something or failed."""
        return tuple(outcome for outcome in self.outcomes if outcome.fired or outcome.error)
