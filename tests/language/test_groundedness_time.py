"""Promise: the time to compare an answer with its passages grows with its length and not faster."""

from __future__ import annotations

import time

import pytest

from tasks.language.groundedness import unsupported

SHORT, TIMES = 2_000, 10


@pytest.mark.parametrize("piece", ["/", "`", "\n", "1", "1,", ":", "a", "a.", "@", "$", "0.0", "-", "_ ", "A", "é1"])
def test_a_hostile_answer_takes_linear_time(piece):
    """A quadratic pattern would take a hundred times as long as for a tenth of the text."""
    text = piece * (SHORT // len(piece))
    unsupported(text, ["A passage."])  # what is compiled at first use
    short = min(_seconds(text) for _ in range(3))
    long = min(_seconds(text * TIMES) for _ in range(2))
    assert long < max(3 * TIMES * short, 0.2), f"{short:.4f} s and {long:.4f} s"


def _seconds(text: str) -> float:
    begin = time.thread_time()
    unsupported(text, ["A passage."])
    return time.thread_time() - begin
