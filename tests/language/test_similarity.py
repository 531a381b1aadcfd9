"""Semantic similarity follows meaning, not words."""

from __future__ import annotations

from pathlib import Path

from tasks.data.language.embedder_files import find_embedder
from tasks.language.similarity import TextSimilarity
from tests.language_case import EMBEDDER


def test_a_paraphrase_is_nearer_than_another_subject():
    """Equal texts have 1, an empty answer 0; a paraphrase without common words lies between."""
    similarity = TextSimilarity(find_embedder(EMBEDDER, Path()).folder)
    reference = "The parcel arrives tomorrow."
    texts = [reference, "Your package will be delivered the next day", "The cat sleeps on the roof", ""]
    same, paraphrase, other, empty = similarity(texts, [reference] * 4)
    assert same > 0.999
    assert 0.5 < paraphrase < same
    assert 0 <= other < 0.3 < paraphrase
    assert empty == 0.0
