"""Escape untrusted text for the terminal, for one line and for Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# Control characters except tab and line feed, bidirectional marks, other line separators and lone surrogates:
# a terminal obeys them, or shows something else than the text.
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LINK = re.compile(r"\]\s{0,9}[\[(:]")
_MARKDOWN = re.compile(r"[\\`*|]|<(?=[A-Za-z/!?])|&(?=[A-Za-z#])|(?<=[A-Za-z]):(?=//)|(?<=\bwww)\.")
_TAG = re.compile(r"<(?=[A-Za-z!@#/?])")
_BRACKETS = re.compile(r"[\[\]]")


def escape_terminal(text: str) -> str:
    """Escape the characters that a terminal would obey, such as `\\u001b`; line breaks stay."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def one_line(text: str) -> str:
    """The text on one line, with its line breaks escaped."""
    return escape_terminal(text).replace("\n", "\\n").replace("\t", " ")


def escape_markdown(text: str) -> str:
    """Escape Markdown, so that the text creates no link, image, HTML or table cell."""
    escaped = _MARKDOWN.sub(r"\\\g<0>", one_line(text))
    return _BRACKETS.sub(r"\\\g<0>", escaped) if _LINK.search(escaped) else escaped


def markdown_table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table, with an empty line at its end; cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return [
        *("| " + " | ".join(escape_markdown(" ".join(str(value).split())) for value in line) + " |" for line in lines),
        "",
    ]


def without_links(text: str) -> str:
    """Escape angle brackets, which Slack and similar channels turn into links or mentions."""
    return _TAG.sub("\u2039", escape_terminal(text))
