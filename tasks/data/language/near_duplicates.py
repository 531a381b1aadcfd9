"""Finds near duplicates of texts, exactly and without comparing each pair."""

from __future__ import annotations

import math
import re
from collections import defaultdict


class NearDuplicateIndex:
    """An index of texts that finds near duplicates of a new text by the Jaccard index of their word 3-grams.

    Two sets that share so much share one of their first few members in any fixed order, so only these are looked up
    (prefix filter); the matches are compared in full.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._grams: list[frozenset[tuple[str, ...]]] = []
        self._places: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)

    def find(self, text: str) -> int | None:
        """The place of the first near duplicate of a text."""
        grams = word_grams(text)
        near = {place for gram in self._first(grams) for place in self._places.get(gram, ())}
        return min((place for place in near if jaccard(grams, self._grams[place]) >= self._threshold), default=None)

    def add(self, text: str) -> int:
        """Add a text; returns its place, counted from 0."""
        grams = word_grams(text)
        place = len(self._grams)
        self._grams.append(grams)
        for gram in self._first(grams):
            self._places[gram].append(place)
        return place

    def _first(self, grams: frozenset[tuple[str, ...]]) -> list[tuple[str, ...]]:
        shared = math.ceil(self._threshold * len(grams) - 1e-9)
        by_rarity = sorted(grams, key=lambda gram: (-sum(map(len, gram)), gram))  # long words are rare
        return by_rarity[: len(grams) - shared + 1]


def normalize(text: str) -> str:
    """A text without case, punctuation and spacing: equal results are the same message."""
    return " ".join(re.findall(r"\w+", text.casefold())) or text.strip()


def word_grams(text: str) -> frozenset[tuple[str, ...]]:
    words = ["", *normalize(text).split(), ""]
    return frozenset(tuple(words[at : at + 3]) for at in range(max(len(words) - 2, 1)))


def jaccard(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)
