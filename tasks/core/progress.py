"""What is going on right now, told to whoever listens: the terminal, or nobody."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class Step:
    """One step of a run as a person would tell it."""

    title: str
    started: float = field(default_factory=time.monotonic)
    seconds: float | None = None  # None while it runs
    figure: str = ""  # its key figure
    cached: bool = False
    failed: bool = False
    depth: int = 0  # of steps that it is a part of


Listener = Callable[[Step], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_running: ContextVar[Step | None] = ContextVar("running", default=None)


@contextmanager
def progress_listener(listener: Listener) -> Iterator[None]:
    """Have `listener` called at the start and at the end of each step."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def progress_step(title: str) -> Iterator[Step]:
    """Time a block of work and tell the listener."""
    tell = _listener.get() or (lambda _: None)
    around = _running.get()
    current = Step(title, depth=around.depth + 1 if around else 0)
    tell(current)
    token = _running.set(current)
    try:
        yield current
    except BaseException:
        current.failed = True
        raise
    finally:
        _running.reset(token)
        current.seconds = time.monotonic() - current.started
        tell(current)


def mark_cached() -> None:
    """Say of the step that runs that its output was in a cache."""
    if current := _running.get():
        current.cached = True
