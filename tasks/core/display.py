"""Texts that people or models wrote, as they are shown: in a terminal, on one line of it, in Markdown."""

from __future__ import annotations

import re

# Control characters except tab and line feed, marks that turn the direction of writing, other ends of lines, halves of
# pairs: a terminal obeys them, or shows something else than what is there.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LINK = re.compile(r"\]\s{0,9}[\[(:]")
_MARKDOWN = re.compile(r"[\\`*|]|<(?=[A-Za-z/!?])|&(?=[A-Za-z#])|(?<=[A-Za-z]):(?=//)|(?<=\bwww)\.")
_TAG = re.compile(r"<(?=[A-Za-z!@#/?])")
_BRACKETS = re.compile(r"[\[\]]")


def escape_terminal(text: str) -> str:
    """The text with what a terminal would obey written as an escape, `\\u001b`; its lines stay."""
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def one_line(text: str) -> str:
    """The text on one line, with its line breaks written as escapes."""
    return escape_terminal(text).replace("\n", "\\n").replace("\t", " ")


def escape_markdown(text: str) -> str:
    """The text as Markdown that reads as it was written: no link, image, HTML or table cell comes of it."""
    escaped = _MARKDOWN.sub(r"\\\g<0>", one_line(text))
    return _BRACKETS.sub(r"\\\g<0>", escaped) if _LINK.search(escaped) else escaped


def without_links(text: str) -> str:
    """The text for a channel that may make links or mentions of what stands in angle brackets, as Slack does."""
    return _TAG.sub("\u2039", escape_terminal(text))
