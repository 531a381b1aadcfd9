"""Characters that hide or disguise text: invisible ones, and letters of another script within a word."""

from __future__ import annotations

import re

from tasks.guard.config import CharactersRule, EncodedRule
from tasks.guard.results import Finding, Span
from tasks.guard.subject import LOOKALIKES, Subject, encoded_pieces

# Zero-width and filler characters, marks of direction, tags; joiners only beside Latin letters, where they have no use.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u115f\u1160\u180e\u200b\u202a-\u202e\u2060-\u2069\u3164\ufeff\uffa0\U000e0000-\U000e007f]+"
    "|(?<=[A-Za-z])[\u200c\u200d]+|[\u200c\u200d]+(?=[A-Za-z])"
)
_WORD = re.compile(r"[^\W\d_]++")
_LATIN = re.compile(r"[A-Za-z]")


class CharactersCheck:
    """Finds the kinds of a rule."""

    def __init__(self, rule: CharactersRule) -> None:
        self._kinds = rule.kinds

    def find(self, subject: Subject) -> Finding | None:
        text = subject.text
        if text.isascii():
            return None
        spans: list[Span] = []
        if "invisible" in self._kinds:
            spans += (Span("invisible", *match.span()) for match in _INVISIBLE.finditer(text))
        if "confusable" in self._kinds:
            spans += (
                Span("confusable", *match.span())
                for match in _WORD.finditer(text)
                if not match[0].isascii()
                and _LATIN.search(match[0])
                and any(ord(letter) in LOOKALIKES for letter in match[0])
            )
        return Finding(tuple(spans), note=", ".join(sorted({span.kind for span in spans}))) if spans else None


class EncodedCheck:
    """Finds base64 and hexadecimal pieces that decode to a readable text."""

    def __init__(self, rule: EncodedRule) -> None:
        pass

    def find(self, subject: Subject) -> Finding | None:
        spans = tuple(Span("encoded", start, end) for start, end, _ in encoded_pieces(subject.text))
        return Finding(spans) if spans else None
