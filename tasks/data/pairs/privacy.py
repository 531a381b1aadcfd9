"""Personal data in messages: found by form and check digit, and replaced by a placeholder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial

EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+(?<![.-])")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
CARD = re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])")
# Groups of digits, the first perhaps with a plus or in parentheses. Bare digits are a number like any other, unless a
# plus or a zero comes first.
PHONE = re.compile(r"(?<![\w.,:/-])(?:\+\d{1,3}[ .-]?)?(?:\(\d{1,5}\)[ .-]?)?\d{2,5}(?:[ ./-]?\d{2,5}){1,4}(?![\w/-])")
DATE = re.compile(r"\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{4}")


def mask(text: str, kinds: Iterable[str]) -> tuple[str, Counter[str]]:
    """The text with personal data of these kinds replaced, and how many of each kind there were."""
    found: Counter[str] = Counter()
    for kind, (pattern, holds) in FORMS.items():  # in this order: the digits of a card look like a telephone number
        if kind in kinds:
            text = pattern.sub(partial(_replace, kind, holds, found), text)
    return text, found


def _replace(kind: str, holds: Callable[[str], bool], found: Counter[str], match: re.Match[str]) -> str:
    if not holds(match[0]):
        return match[0]
    found[kind] += 1
    return f"[{kind.upper()}]"


def _is_iban(value: str) -> bool:
    """ISO 13616: with the first four characters moved to the end and letters as numbers, it is 1 modulo 97."""
    characters = value.replace(" ", "")
    if not 15 <= len(characters) <= 34:
        return False
    return int("".join(str(int(c, 36)) for c in characters[4:] + characters[:4])) % 97 == 1


def _is_card(value: str) -> bool:
    """The check digit of ISO/IEC 7812 (Luhn)."""
    digits = [int(c) for c in value if c.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return any(digits) and (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def _is_phone(value: str) -> bool:
    digits = sum(c.isdigit() for c in value)
    marked = value.startswith(("+", "0", "(")) or not value.isdigit()
    return 9 <= digits <= 15 and marked and not DATE.search(value)


FORMS: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "email": (EMAIL, lambda _: True),
    "iban": (IBAN, _is_iban),
    "card": (CARD, _is_card),
    "phone": (PHONE, _is_phone),
}
