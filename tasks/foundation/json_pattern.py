"""The regular expressions that the engine enforces within a JSON string: a small part of ECMA 262's.

llama.cpp ignores what it does not know and then lets any text through, writes quotes and backslashes unescaped, and
takes time that grows exponentially for ambiguous repetitions. What is let through here was measured to be enforced, and
to cost an engine little.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_LENGTH = 500  # characters of a pattern
MAX_REPEAT = 256  # of {m,n}
MAX_POSITIONS = 512  # characters of the longest text, * and + counted once
MAX_OPTIONAL = 64  # characters or groups that may be left out: n - m of each {m,n}, one of each ?, * and +
ESCAPED = set("^$.[](){}|*+?-")  # what a backslash may stand before
SPECIAL = set("^$.[](){}|*+?\\")
UNSAFE = set('"\\')  # they would end or break the JSON string
COUNT = re.compile(r"\{(\d{1,4})(,(\d{1,4})?)?\}")


@dataclass(frozen=True)
class Part:
    """What is known of a part of a pattern."""

    shortest: int  # characters
    longest: int  # characters, unbounded repetitions counted once
    varies: bool  # it matches texts of different lengths


class Pattern:
    """A parser that reads a pattern and looks for what can't be enforced."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._optional = text, 0, 0

    def check(self) -> None:
        """Raises: ValueError that says what can't be enforced."""
        if len(self._text) > MAX_LENGTH:
            raise ValueError(f"has {len(self._text):,} characters; at most {MAX_LENGTH} are taken")
        if not (self._text.startswith("^") and self._text.endswith("$") and len(self._text) > 1):
            raise ValueError("must begin with ^ and end with $: the engine knows whole texts only")
        self._at, end = 1, len(self._text) - 1
        self._text, whole = self._text[:end], self._text
        if len(re.findall(r"\\*$", self._text)[0]) % 2:
            raise ValueError(f"must end with $, which is escaped in {whole[-3:]}")
        part = self._sequence()
        if self._at < len(self._text):
            what = "a | outside of a group" if self._text[self._at] == "|" else f"an unpaired {self._text[self._at]}"
            raise ValueError(f"has {what} at character {self._at + 1}")
        if part.longest > MAX_POSITIONS:
            raise ValueError(f"is about texts of {part.longest:,} characters; at most {MAX_POSITIONS} are taken")
        if self._optional > MAX_OPTIONAL:
            raise ValueError(f"has {self._optional:,} parts that may be left out; at most {MAX_OPTIONAL} are taken")

    def _sequence(self) -> Part:
        parts = [Part(0, 0, False)]
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            grouped = self._text[self._at] == "("
            parts.append(self._repeated(self._atom(), grouped))
        varies = any(part.varies for part in parts)
        return Part(sum(part.shortest for part in parts), sum(part.longest for part in parts), varies)

    def _atom(self) -> Part:
        letter = self._text[self._at]
        if letter == "(":
            return self._group()
        if letter == "[":
            return self._class()
        if letter == "\\":
            self._escape()
        elif letter in SPECIAL or letter in UNSAFE or not letter.isprintable():
            raise ValueError(f"has {letter!r} at character {self._at + 1}, which can't be enforced there")
        self._at += 1
        return Part(1, 1, False)

    def _escape(self) -> str:
        """Step on to the escaped character and give it."""
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
        parts = [self._sequence()]
        while self._text.startswith("|", self._at):
            self._at += 1
            parts.append(self._sequence())
        if not self._text.startswith(")", self._at):
            raise ValueError("has a group without its end")
        self._at += 1
        if any(not part.longest for part in parts):
            raise ValueError("has an empty group or alternative; put ? behind the group")
        shortest, longest = min(part.shortest for part in parts), max(part.longest for part in parts)
        return Part(shortest, longest, shortest != longest or any(part.varies for part in parts))

    def _class(self) -> Part:
        self._at += 1
        if self._text.startswith("^", self._at):
            raise ValueError("has a [^...], which lets quotes through; list what is allowed")
        first, count = self._at, 0
        while self._at < len(self._text) and (self._text[self._at] != "]" or self._at == first):
            low = high = self._class_letter()
            follows = self._text[self._at : self._at + 2]
            if len(follows) == 2 and follows[0] == "-" and follows[1] != "]":
                self._at += 1
                high = self._class_letter()
            if low > high or any(low <= letter <= high for letter in UNSAFE) or not low.isprintable():
                raise ValueError(f"has the range {low}-{high}, which is empty or contains a quote or a backslash")
            count += 1
        if self._at >= len(self._text) or not count:
            raise ValueError("has a [ without its ]")
        self._at += 1
        return Part(1, 1, False)

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
            raise ValueError(f"has a second repetition, {self._text[self._at]}, behind another")
        if sign != "?" and not part.shortest:
            raise ValueError("repeats what may be empty")
        if sign == "{" and grouped and part.varies:
            raise ValueError("repeats, by {...}, a group of varying length: the engine may take minutes for it")
        self._optional += high - low
        return Part(low * part.shortest, max(high, 1) * part.longest, part.varies or low != high)

    def _counts(self, sign: str) -> tuple[int, int]:
        """The least and the most repetitions; unbounded ones count as one more than the least."""
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


def check_pattern(text: str) -> None:
    """Raises: ValueError that says why the engine could not enforce a pattern, or not in little time."""
    Pattern(text).check()
