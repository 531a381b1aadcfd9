"""Counts what models are asked by a run itself: its calls, tokens and seconds, answers from a cache left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from tasks.language.engine import Completion


@dataclass
class TokenCount:
    """The sums of the calls within a block."""

    calls: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    seconds: float = 0.0  # of the machine


_count: ContextVar[TokenCount | None] = ContextVar("token_count", default=None)


@contextmanager
def token_count() -> Iterator[TokenCount]:
    """Count the calls within the block."""
    count = TokenCount()
    token = _count.set(count)
    try:
        yield count
    finally:
        _count.reset(token)


def count_tokens(completions: Iterable[Completion], seconds: float) -> None:
    """Add calls that took so many seconds together to the count of the block, if there is one."""
    if (count := _count.get()) is None:
        return
    for each in completions:
        count.calls += 1
        count.tokens_in += each.tokens_in
        count.tokens_cached += each.tokens_cached
        count.tokens_out += each.tokens_out
    count.seconds += seconds
