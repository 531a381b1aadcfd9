"""Finds personal data and secrets in texts, whatever surrounds them, and replaces them by placeholders."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from tasks.guard.credentials import STRONG_NAME, find_secrets, is_secret
from tasks.guard.normalize import Normalized
from tasks.guard.payment import find_cards, find_ibans
from tasks.guard.phones import MIN_DIGITS, find_phones

_EMAIL = re.compile(
    r"(?<![\w.+-])(?<![\w.+-]')[\w.+-]++(?:'[\w.+-]++)*+@"
    r"(?:[\w-]+(?:\.[\w-]+)+(?<![.-])|\[[0-9a-fA-F.:]{3,45}\])"
)
_NOTHING = "\0"  # replaces spans found earlier: neither part of a word nor a separator


class Span(NamedTuple):
    """A span of a text; `end` is exclusive."""

    kind: str
    start: int
    end: int


def _find_emails(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in _EMAIL.finditer(text)] if "@" in text else []


# In this order: a secret may contain an e-mail address, and a card number looks like a telephone number.
_FINDERS: dict[str, Callable[[str], Sequence[tuple[int, int]]]] = {
    "secret": find_secrets,
    "email": _find_emails,
    "iban": find_ibans,
    "card": find_cards,
    "phone": find_phones,
}
KINDS = tuple(_FINDERS)
_LONG_NUMBER = re.compile(r"[0-9][^0-9]{0,6}[0-9][^0-9]{0,6}[0-9][^0-9]{0,6}[0-9][^0-9]{0,6}[0-9][^0-9]{0,6}[0-9]")
_SHORT = re.compile(r"(?a:[\w .:,-]{0,12})\Z")  # too short for any kind, unless it is nearly all digits
SHORT_KEY = 64  # characters of a field's name that is remembered
_SMALL = 10**11  # no card has fewer digits, and a whole number in JSON begins with neither a plus nor a zero


def find_spans(text: str, kinds: Collection[str] = KINDS) -> list[Span]:
    """All spans of personal data and secrets, in order; the time is linear in the length of the text.

    Percent, HTML and JSON encodings are decoded, also nested ones; digits, dashes and spaces of other scripts are
    recognised, and invisible characters ignored. Base64 is not decoded.
    """
    if _SHORT.match(text) and sum(map(str.isdigit, text)) < MIN_DIGITS:
        return []
    normalized = Normalized(text)
    plain = normalized.text
    spans: list[Span] = []
    has_number = _LONG_NUMBER.search(plain) is not None
    for kind, finder in _FINDERS.items():
        if kind not in kinds:
            continue
        if finder in (find_ibans, find_cards, find_phones) and not has_number:
            continue
        pieces: list[str] = []
        at = 0
        for start, end in finder(plain):
            spans.append(Span(kind, *normalized.original(start, end)))
            pieces += (plain[at:start], _NOTHING * (end - start))
            at = end
        if at:
            plain = "".join((*pieces, plain[at:]))
    return sorted(spans, key=lambda span: span.start)


def redact(text: str, kinds: Collection[str] = KINDS) -> tuple[str, Counter[str]]:
    """The text with placeholders such as `[EMAIL]` for these kinds, and the count of each kind."""
    counts: Counter[str] = Counter()
    pieces: list[str] = []
    at = 0
    for kind, start, end in find_spans(text):
        if kind in kinds:
            counts[kind] += 1
            pieces += (text[at : max(start, at)], f"[{kind.upper()}]")
            at = max(end, at)
    return ("".join((*pieces, text[at:])), counts) if counts else (text, counts)


def redact_json(value: Any) -> Any:
    """A JSON value with redacted texts, keys and whole numbers at any depth; its structure stays.

    The value of a key such as `password` is a secret if it looks like one.
    """
    root = [value]
    containers: list[Any] = [root]
    while containers:
        container = containers.pop()
        pairs = list(enumerate(container) if isinstance(container, list) else container.items())
        if isinstance(container, dict):
            container.clear()
        for key, each in pairs:
            each = each.copy() if isinstance(each, dict | list) else _redact_scalar(key, each)
            if isinstance(container, dict):
                key = _unused(_redact_key(key) if len(key) <= SHORT_KEY else redact(key)[0], container)
            container[key] = each
            if isinstance(each, dict | list):
                containers.append(each)
    return root[0]


@lru_cache(4096)
def _redact_key(key: str) -> str:
    """The names of fields repeat in every row and every call."""
    return redact(key)[0]


def _unused(key: str, container: dict[str, Any]) -> str:
    """Redacted keys stay distinct: two may have the same placeholder."""
    return key if key not in container else f"{key} ({len(container)})"


def _redact_scalar(key: Any, value: Any) -> Any:
    if isinstance(value, str):
        if isinstance(key, str) and STRONG_NAME.search(key) and " " not in value and is_secret(value, is_strong=True):
            return "[SECRET]"
        return redact(value)[0]
    if isinstance(value, int | float) and abs(value) >= _SMALL and math.isfinite(value) and value == int(value):
        written, counts = redact(str(int(value)))
        return written if counts else value
    return value
