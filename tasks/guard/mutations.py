"""Disguises of a text that a person, or a model, still reads: what attackers do to texts that a rule would find."""

# ruff: noqa: RUF001 (letters that look alike are its matter)

from __future__ import annotations

import base64
import codecs
from collections.abc import Callable
from urllib.parse import quote

_CYRILLIC = str.maketrans("aeopcxyiAEOPCXTHMKB", "аеорсхуіАЕОРСХТНМКВ")
_LEET = str.maketrans("oieastOIEAST", "013457013457")
ZERO_WIDTH = "\u200b"


def _each_letter(text: str, between: str) -> str:
    return " ".join(between.join(word) for word in text.split())


# What leaves a value such as a card number legible; the others encode it or replace its digits.
MUTATIONS: dict[str, Callable[[str], str]] = {
    "upper case": str.upper,
    "mixed case": lambda text: "".join(c.upper() if at % 2 else c.lower() for at, c in enumerate(text)),
    "wide spaces": lambda text: "  \u00a0".join(text.split(" ")),
    "zero width": lambda text: ZERO_WIDTH.join(text),
    "full width": lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "look-alikes": lambda text: text.translate(_CYRILLIC),
    "accents": lambda text: "".join(c + "\u0307" if c.isalpha() else c for c in text),
    "digits for letters": lambda text: text.translate(_LEET),
    "spaced letters": lambda text: "   ".join(_each_letter(word, " ") for word in text.split()),
    "dotted letters": lambda text: _each_letter(text, "."),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "reversed": lambda text: text[::-1],
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
    "percent": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()) if text.isascii() else quote(text),
    "HTML": lambda text: "".join(f"&#{ord(c)};" for c in text),
    "JSON escapes": lambda text: "".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else c for c in text),
    "two lines": lambda text: text[: len(text) // 2] + "\n" + text[len(text) // 2 :],
    "two turns": lambda text: text[: len(text) // 2] + " " + text[len(text) // 2 :],  # as the gateway joins them
    "within a letter": lambda text: f"Dear team,\n\nthank you for the report of last week. {text}\n\nKind regards, Ann",
}
LEGIBLE = ("wide spaces", "zero width", "full width", "percent", "HTML", "JSON escapes", "within a letter")


def mutations_for(check: str) -> dict[str, Callable[[str], str]]:
    """The mutations that a check is tried with: of values such as card numbers, those that keep their signs."""
    if check in ("personal_data", "secrets"):
        return {name: MUTATIONS[name] for name in LEGIBLE}
    return MUTATIONS
