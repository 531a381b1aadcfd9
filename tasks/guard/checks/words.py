"""Words and phrases from a list, in any case, with look-alike letters, encodings and invisible characters between."""

from __future__ import annotations

import re

from tasks.guard.config import WordsRule
from tasks.guard.results import Finding, Span
from tasks.guard.subject import Subject


class WordsCheck:
    """Finds words; the longest first, and each character a constant number of times."""

    def __init__(self, rule: WordsRule) -> None:
        folded = sorted((_fold(word) for word in rule.words), key=len, reverse=True)
        alternatives = "|".join(re.escape(word).replace(r"\ ", r"\s{1,3}") for word in folded)
        self.reach = 2 * len(folded[0]) + 16
        self._form = re.compile(alternatives if rule.parts else rf"(?<!\w)(?:{alternatives})(?!\w)")

    def find(self, subject: Subject) -> Finding | None:
        original = subject.normalized.original
        spans = tuple(Span("word", *original(*match.span())) for match in self._form.finditer(subject.folded))
        return Finding(spans) if spans else None


def _fold(word: str) -> str:
    return " ".join(Subject(word).folded.split())
