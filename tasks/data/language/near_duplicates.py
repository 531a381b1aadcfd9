"""Texts that are alike: found exactly, without comparing each with each."""

from __future__ import annotations

import math
import re
from collections import defaultdict


class NearDuplicateIndex:
    """Remembers texts, and finds one that a new text is like: the Jaccard index of their word 3-grams.

    Two sets that share so much share one of their first few members in any fixed order, so only these are looked up
    (prefix filter); what is found there is compared in full.
    """

    def __init__(self, at_least: float) -> None:
        self._at_least = at_least
        self._grams: list[frozenset[tuple[str, ...]]] = []
        self._places: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)

    def find(self, text: str) -> int | None:
        """The place of the first text that is like this one."""
        grams = _grams(text)
        near = {place for gram in self._first(grams) for place in self._places.get(gram, ())}
        return min((place for place in near if _jaccard(grams, self._grams[place]) >= self._at_least), default=None)

    def add(self, text: str) -> int:
        """Remember a text; gives its place, counted from 0."""
        grams = _grams(text)
        place = len(self._grams)
        self._grams.append(grams)
        for gram in self._first(grams):
            self._places[gram].append(place)
        return place

    def _first(self, grams: frozenset[tuple[str, ...]]) -> list[tuple[str, ...]]:
        shared = math.ceil(self._at_least * len(grams) - 1e-9)
        in_order = sorted(
            grams, key=lambda gram: (-sum(map(len, gram)), gram)
        )  # long words are rare: few are looked up
        return in_order[: len(grams) - shared + 1]


def normalize(text: str) -> str:
    """A text without case, punctuation and spacing: what is left is what makes it the same message."""
    return " ".join(re.findall(r"\w+", text.casefold())) or text.strip()


def _grams(text: str) -> frozenset[tuple[str, ...]]:
    words = ["", *normalize(text).split(), ""]
    return frozenset(tuple(words[at : at + 3]) for at in range(max(len(words) - 2, 1)))


def _jaccard(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)
