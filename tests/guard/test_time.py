"""Promise: the time of redaction grows with the length of a text and not faster, whatever the text is."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tasks.guard.redaction import find_spans, redact_json

PIECES = (
    *(
        "1 ",
        "12345",
        "1-",
        "0.1",
        "09 ",
        "1,234",
        "4111 ",
        "212-",
        "00 ",
        "+1 ",
        "(1)",
        "a@",
        "@",
        "a.",
        ".",
        " ",
        "(",
        "+",
    ),
    *(
        "DE89",
        "DE 89 ",
        "eyJ",
        "eyJ.",
        "\\",
        "\\u",
        "%",
        "%25",
        "&#",
        "&a",
        "\u200b",
        "\uff11",
        "x",
        "'",
        "a'",
        "password",
        "key=",
    ),
    *("sk-", "bearer ", "://a:", "-----BEGIN PRIVATE KEY-----", "AKIA", "xoxb-", "key=a1", "a@b.", "1:1:", "192.168."),
)
SHORT, TIMES = 4_000, 10


@pytest.mark.parametrize("piece", PIECES)
def test_ten_times_the_text_takes_about_ten_times_as_long(piece):
    """Processor time, measured in one run, the least of several; a quadratic pattern would take a hundred times."""
    text = piece * (SHORT // len(piece))
    find_spans(text)  # what is compiled at first use
    short = min(_seconds(text) for _ in range(3))
    long = min(_seconds(text * TIMES) for _ in range(2))
    assert long < max(2.5 * TIMES * short, 0.3), f"{short:.4f} s and {long:.4f} s"


def _seconds(text: str) -> float:
    begin = time.thread_time()
    find_spans(text)
    return time.thread_time() - begin


@pytest.mark.parametrize("levels", [1_000, 100_000])
def test_json_may_be_as_deep_as_it_likes(levels):
    """No limit of recursion stands in the way."""
    value: Any = "jo@mail.example"
    for _ in range(levels):
        value = [value]
    inner = redact_json(value)
    for _ in range(levels):
        assert isinstance(inner, list)
        inner = inner[0]
    assert inner == "[EMAIL]"
