"""Checks regular expressions of JSON strings: the engine enforces a small part of ECMA 262.

llama.cpp ignores what it does not know and then allows any text; it writes quotes and backslashes unescaped; and its
time grows exponentially with ambiguous repetitions. The allowed patterns were tested: the engine enforces them at
little cost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

MAX_LENGTH = 500  # characters of a pattern
MAX_REPEAT = 256  # of {m,n}
MAX_POSITIONS = 512  # characters of the longest text, * and + counted once
MAX_AMBIGUOUS = 8  # see Pattern: each is one more state of the engine, which it tries with every token
ESCAPED = set("^$.[](){}|*+?-")  # characters allowed after a backslash
SPECIAL = set("^$.[](){}|*+?\\")
UNSAFE = set('"\\')  # they would end or break the JSON string
COUNT = re.compile(r"\{(\d{1,4})(,(\d{1,4})?)?\}")


Letters: TypeAlias = tuple[tuple[str, str], ...]  # ranges, from and to


@dataclass(frozen=True)
class Part:
    """The properties of a part of a pattern."""

    shortest: int  # characters
    longest: int  # characters, unbounded repetitions counted once
    varies: bool  # it matches texts of different lengths
    first: Letters = ()  # possible first letters
    repeats: bool = False  # it contains a group that is repeated
    open: int = 0  # repetitions that may or may not be followed by another one


class Pattern:
    """A parser of patterns that rejects what the engine can't enforce.

    A place is ambiguous when the next letter may belong to several parts. A repetition {m,n} counts n - m times, and
    each of ?, * and + counts once, if the next part can begin with the same letter. An alternative counts if another
    one can begin with the same letter.
    """

    def __init__(self, text: str) -> None:
        self._text, self._at, self._ambiguous = text, 0, 0

    def check(self) -> None:
        """Raises: ValueError that names what can't be enforced."""
        if len(self._text) > MAX_LENGTH:
            raise ValueError(f"has {len(self._text):,} characters; at most {MAX_LENGTH} are allowed")
        if not (self._text.startswith("^") and self._text.endswith("$") and len(self._text) > 1):
            raise ValueError("must begin with ^ and end with $: the engine matches whole texts only")
        self._at, end = 1, len(self._text) - 1
        self._text, whole = self._text[:end], self._text
        if len(re.findall(r"\\*$", self._text)[0]) % 2:
            raise ValueError(f"must end with $, which is escaped in {whole[-3:]}")
        part = self._sequence()
        if self._at < len(self._text):
            what = "a | outside of a group" if self._text[self._at] == "|" else f"an unpaired {self._text[self._at]}"
            raise ValueError(f"has {what} at character {self._at + 1}")
        if part.longest > MAX_POSITIONS:
            raise ValueError(f"matches texts of {part.longest:,} characters; at most {MAX_POSITIONS} are allowed")
        if self._ambiguous > MAX_AMBIGUOUS:
            text = f"is ambiguous in {self._ambiguous:,} places; at most {MAX_AMBIGUOUS} are allowed:  "
            raise ValueError(text + "begin the part after a repetition with another letter")

    def _sequence(self, grouped: bool = False) -> Part:
        """A sequence of parts; grouped: the part after them is unknown."""
        parts: list[Part] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            of_group = self._text[self._at] == "("
            parts.append(self._repeated(self._atom(), of_group))
        first: Letters = ()
        follows: Letters | None = None if grouped else ()
        for part in reversed(parts):
            if part.open and (follows is None or _overlap(part.first, follows)):
                self._ambiguous += part.open
            first = part.first if part.shortest else (*part.first, *first)
            follows = part.first if part.shortest else None if follows is None else (*part.first, *follows)
        lengths = sum(part.shortest for part in parts), sum(part.longest for part in parts)
        return Part(*lengths, any(part.varies for part in parts), first, any(part.repeats for part in parts))

    def _atom(self) -> Part:
        letter = self._text[self._at]
        if letter == "(":
            return self._group()
        if letter == "[":
            return self._class()
        if letter == "\\":
            letter = self._escape()
        elif letter in SPECIAL or letter in UNSAFE or not letter.isprintable():
            raise ValueError(f"has {letter!r} at character {self._at + 1}, which can't be enforced there")
        self._at += 1
        return Part(1, 1, False, ((letter, letter),))

    def _escape(self) -> str:
        """Move to the escaped character and return it."""
        self._at += 1
        letter = self._text[self._at : self._at + 1]
        if letter not in ESCAPED or not letter:
            raise ValueError(f"has the escape \\{letter}, which can't be enforced; spell it out, such as [0-9] for \\d")
        return letter

    def _group(self) -> Part:
        begun = self._at
        self._at += 3 if self._text.startswith("(?:", self._at) else 1
        if self._text.startswith("?", self._at):
            raise ValueError(f"has {self._text[begun : begun + 4]!r}: lookarounds, names and flags can't be enforced")
        parts = [self._sequence(grouped=True)]
        while self._text.startswith("|", self._at):
            self._at += 1
            parts.append(self._sequence(grouped=True))
        if not self._text.startswith(")", self._at):
            raise ValueError("has a group without its end")
        self._at += 1
        if any(not part.longest for part in parts):
            raise ValueError("has an empty group or alternative; put ? after the group")
        for i, part in enumerate(parts):
            self._ambiguous += any(_overlap(part.first, other.first) for other in parts[:i])
        first = tuple(letters for part in parts for letters in part.first)
        shortest, longest = min(part.shortest for part in parts), max(part.longest for part in parts)
        return Part(
            shortest,
            longest,
            shortest != longest or any(part.varies for part in parts),
            first,
            any(part.repeats for part in parts),
        )

    def _class(self) -> Part:
        self._at += 1
        if self._text.startswith("^", self._at):
            raise ValueError("has a [^...], which allows quotes; list the allowed characters")
        begun, letters = self._at, []
        while self._at < len(self._text) and (self._text[self._at] != "]" or self._at == begun):
            low = high = self._class_letter()
            follows = self._text[self._at : self._at + 2]
            if len(follows) == 2 and follows[0] == "-" and follows[1] != "]":
                self._at += 1
                high = self._class_letter()
            if low > high or any(low <= letter <= high for letter in UNSAFE) or not low.isprintable():
                raise ValueError(f"has the range {low}-{high}, which is empty or contains a quote or a backslash")
            letters.append((low, high))
        if self._at >= len(self._text) or not letters:
            raise ValueError("has a [ without its ]")
        self._at += 1
        return Part(1, 1, False, tuple(letters))

    def _class_letter(self) -> str:
        letter = self._text[self._at]
        if letter == "\\":
            letter = self._escape()
        elif letter in "[]":
            raise ValueError(f"has a {letter} within [...]; write \\{letter}")
        self._at += 1
        return letter

    def _repeated(self, part: Part, grouped: bool) -> Part:
        sign = self._text[self._at : self._at + 1]
        if sign not in ("?", "*", "+", "{") or not sign:
            return part
        low, high = self._counts(sign)
        if self._text[self._at : self._at + 1] in ("?", "*", "+", "{") and self._at < len(self._text):
            raise ValueError(f"has a second repetition, {self._text[self._at]}, after another")
        if sign != "?" and not part.shortest:
            raise ValueError("repeats a part that may be empty")
        if sign == "{" and grouped and part.varies:
            raise ValueError("repeats, by {...}, a group of varying length: the engine may take minutes for it")
        if sign != "?" and part.repeats:
            raise ValueError("repeats a group that contains a repeated group: the engine may take minutes for it")
        repeats = part.repeats or (grouped and sign != "?")
        varies = part.varies or low != high
        return Part(low * part.shortest, max(high, 1) * part.longest, varies, part.first, repeats, high - low)

    def _counts(self, sign: str) -> tuple[int, int]:
        """The minimum and the maximum number of repetitions; an unbounded maximum is the minimum plus one."""
        if sign != "{":
            self._at += 1
            return {"?": (0, 1), "*": (0, 1), "+": (1, 2)}[sign]
        found = COUNT.match(self._text, self._at)
        if not found:
            raise ValueError("has a { that is no {m}, {m,} or {m,n}; a brace itself is written \\{")
        self._at = found.end()
        low = int(found[1])
        high = low if not found[2] else int(found[3]) if found[3] else low + 1
        if not low <= high <= MAX_REPEAT or not high:
            raise ValueError(f"has the repetition {found[0]}; {{m,n}} needs m <= n, and n from 1 to {MAX_REPEAT}")
        return low, high


def _overlap(some: Letters, others: Letters) -> bool:
    return any(low <= other_high and other_low <= high for low, high in some for other_low, other_high in others)


def check_pattern(text: str) -> None:
    """Raises: ValueError with the reason why the engine can't enforce a pattern, or would take too long."""
    Pattern(text).check()
