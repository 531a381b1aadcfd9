"""Progress steps of a run, reported to a listener such as the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class Step:
    """One step of a run, as shown to a person."""

    title: str
    started: float = field(default_factory=time.monotonic)
    seconds: float | None = None  # None while it runs
    figure: str = ""  # its key figure
    cached: bool = False
    failed: bool = False
    depth: int = 0  # nesting level


Listener = Callable[[Step], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_running: ContextVar[Step | None] = ContextVar("running", default=None)


@contextmanager
def progress_listener(listener: Listener) -> Iterator[None]:
    """Call `listener` at the start and at the end of each step."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def progress_step(title: str) -> Iterator[Step]:
    """Time a block of work and notify the listener."""
    notify = _listener.get() or (lambda _: None)
    parent = _running.get()
    current = Step(title, depth=parent.depth + 1 if parent else 0)
    notify(current)
    token = _running.set(current)
    try:
        yield current
    except BaseException:
        current.failed = True
        raise
    finally:
        _running.reset(token)
        current.seconds = time.monotonic() - current.started
        notify(current)


@contextmanager
def progress_figures(title: str, show: Callable[[str], None]) -> Iterator[None]:
    """Call `show` with the figure of each finished step of this title, beside the listener that there is."""
    before = _listener.get() or (lambda _: None)

    def listen(step: Step) -> None:
        before(step)
        if step.title == title and step.seconds is not None and not step.failed:
            show(step.figure)

    with progress_listener(listen):
        yield


def mark_cached() -> None:
    """Mark the current step as served from a cache."""
    if current := _running.get():
        current.cached = True
