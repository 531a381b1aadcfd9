"""Who acts: a person or a machine; every decision that is recorded names one of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from tasks.core.processes import current_user

# unknown: recorded before Driftline distinguished them
ActorKind = Literal["person", "schedule", "event", "search", "process", "unknown"]


@dataclass(frozen=True)
class Actor:
    """The kind decides whether a person or a machine acted; a name alone can't."""

    kind: ActorKind
    name: str

    @property
    def label(self) -> str:
        """The name, with the kind unless it is a person."""
        return self.name if self.kind in ("person", self.name) else f"{self.kind}: {self.name}"


def person(name: str) -> Actor:
    return Actor("person", name)


def process(name: str) -> Actor:
    return Actor("process", name)


_acting: ContextVar[Actor | None] = ContextVar("acting", default=None)


@contextlib.contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """Within it, what is recorded names this actor."""
    token = _acting.set(actor)
    try:
        yield
    finally:
        _acting.reset(token)


def current_actor() -> Actor:
    """The actor of the current run; outside a run the person who started this command."""
    return _acting.get() or person(current_user())


def pipeline() -> Actor:
    """What a run decides by itself, without a person; the name says who or what started the run."""
    return process(f"pipeline, started by {current_actor().label}")
