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
_depth: ContextVar[int] = ContextVar("depth", default=0)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have `listener` called at the start and at the end of each step."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def step(title: str) -> Iterator[Step]:
    """Time a block of work and tell the listener."""
    tell = _listener.get() or (lambda _: None)
    current = Step(title, depth=_depth.get())
    tell(current)
    token = _depth.set(current.depth + 1)
    try:
        yield current
    except BaseException:
        current.failed = True
        raise
    finally:
        _depth.reset(token)
        current.seconds = time.monotonic() - current.started
        tell(current)
