"""Normalizes a text: decoded, with ASCII digits and signs, and a map back to the original."""

from __future__ import annotations

import functools
import html
import re
import unicodedata
from bisect import bisect_right
from functools import cached_property

PASSES = 4  # nested encodings, such as %2540
# Each alternative consumes what it matched, so that every character is read a constant number of times.
_ENCODED = re.compile(
    r"""
      \\++(?:u[dD][89abAB][0-9a-fA-F]{2}\\++u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|[bfnrtv"'/])?
    | %(?:[0-7][0-9a-fA-F]|[c-fC-F][0-9a-fA-F](?:%[89abAB][0-9a-fA-F]){1,3}|u[0-9a-fA-F]{4})
    | &(?:\#[0-9]{1,7};?|\#[xX][0-9a-fA-F]{1,6};?|[A-Za-z][A-Za-z0-9]{1,30};)
    | [^\w\x00-\x7f]
    | [\u2460-\u24ff\u3000-\u303f\ufe50-\ufe6b\uff01-\uff5e\U0001d400-\U0001d7ff]
    | (?![0-9])\d
    | [\x00-\x08\x0e-\x1f\x7f]
    """,
    re.VERBOSE,
)
_SIGNS = re.compile(r"[\\%&]")
_PERHAPS = re.compile(r"[^\t-\r -$'-\[\]-~]")  # not a literal character
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_LOOKALIKES = {**dict.fromkeys("•‧・∙⋅", "·"), "\u2215": "/", "\u2044": "/", "。": ".", "\u2212": "-"}
_DROPPED = {"Cf", "Cc", "Mn", "Me"}  # zero-width, control, combining
_KINDS = {"Zs": " ", "Zl": "\n", "Zp": "\n", "Pd": "-"}

Mark = tuple[int, int, int, int]  # of a replacement: start and end in the new text, start and end in the old text


class Normalized:
    """A normalized text, and the position of each character in the original."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._passes: list[_Characters | _Escapes] = []
        for _ in range(PASSES):
            if not _PERHAPS.search(self.text):
                break
            before = len(self._passes)
            for kind in (_Characters, _Escapes):
                step = kind(self.text)
                if step.result != self.text:
                    self.text = step.result
                    self._passes.append(step)
            if len(self._passes) == before:
                break

    def original(self, start: int, end: int) -> tuple[int, int]:
        """The span of the original for a span of `text`; `end` is exclusive."""
        for step in reversed(self._passes):
            start, end = step.before(start)[0], step.before(end - 1)[1]
        return start, end


class _Characters:
    """Single characters replaced by what they mean; most texts have few different ones."""

    def __init__(self, text: str) -> None:
        plain = {each: _decode(each) for each in set(text) if each not in "\\%&" and _ENCODED.match(each)}
        self._plain = {each: to for each, to in plain.items() if each != to}
        self._text = text
        self.result = text.translate({ord(each): to for each, to in self._plain.items()}) if self._plain else text

    @cached_property
    def _places(self) -> list[int]:
        """By character of the result, the character of the text."""
        lengths = [len(self._plain.get(each, each)) for each in self._text]
        return [at for at, length in enumerate(lengths) for _ in range(length)]

    def before(self, at: int) -> tuple[int, int]:
        """Start and end, in the text, of the character at `at` of the result."""
        return self._places[at], self._places[at] + 1


class _Escapes:
    """Escapes of several characters decoded."""

    def __init__(self, text: str) -> None:
        self._marks, pieces = _replacements(text) if _SIGNS.search(text) else ([], [text])
        self._starts = [mark[0] for mark in self._marks]
        self.result = "".join(pieces)

    def before(self, at: int) -> tuple[int, int]:
        """Start and end, in the text, of the character at `at` of the result."""
        index = bisect_right(self._starts, at) - 1
        if index < 0:
            return at, at + 1
        _, new_end, old_start, old_end = self._marks[index]
        if at < new_end:
            return old_start, old_end
        moved = old_end + at - new_end
        return moved, moved + 1


def _replacements(text: str) -> tuple[list[Mark], list[str]]:
    marks: list[Mark] = []
    pieces: list[str] = []
    at = length = 0
    for match in _ENCODED.finditer(text):
        plain = _decode(match[0])
        if plain == match[0]:
            continue
        start, end = match.span()
        pieces += (text[at:start], plain)
        length += start - at
        marks.append((length, length + len(plain), start, end))
        length += len(plain)
        at = end
    pieces.append(text[at:])
    return marks, pieces


@functools.lru_cache(4096)
def _decode(piece: str) -> str:
    """The decoded piece; unchanged if it is not encoded."""
    first = piece[0]
    if first == "\\":
        return _unescape(piece)
    if first == "%":
        if piece[1] == "u":
            return chr(int(piece[2:], 16))
        return bytes.fromhex(piece.replace("%", "")).decode(errors="ignore") or piece
    if first == "&" and len(piece) > 1:
        return html.unescape(piece)
    return "".join(map(_plain, unicodedata.normalize("NFKC", piece)))


def _unescape(piece: str) -> str:
    """Decode a JSON escape, also one that is escaped repeatedly."""
    escape = piece.lstrip("\\")
    if not escape:
        return piece
    if escape[0] in "ux":
        codes = [int(part, 16) for part in re.findall(r"[ux]([0-9a-fA-F]+)", escape)]
        if len(codes) == 2:  # a pair of surrogates
            return chr(0x10000 + ((codes[0] - 0xD800) << 10) + (codes[1] - 0xDC00))
        return chr(codes[0])
    return _ESCAPES.get(escape, escape)


def _plain(character: str) -> str:
    if (digit := unicodedata.decimal(character, None)) is not None:
        return str(digit)
    if character in _LOOKALIKES:
        return _LOOKALIKES[character]
    category = unicodedata.category(character)
    if category in _DROPPED:
        return character if character.isspace() else ""
    return _KINDS.get(category, character)
