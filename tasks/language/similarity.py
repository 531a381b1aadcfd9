"""Semantic similarity of texts: the cosine of their sentence embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.language.embedder import Embedder

if TYPE_CHECKING:
    import numpy as np


class TextSimilarity:
    """Compares texts pairwise; each text is embedded once."""

    def __init__(self, embedder: Path, tokenizer: Path | None = None) -> None:
        self._folder, self._tokenizer = embedder, tokenizer
        self._vectors: dict[str, np.ndarray] = {}

    @cached_property
    def _embedder(self) -> Embedder:
        return Embedder(self._folder, self._tokenizer)

    def __call__(self, texts: Sequence[str], references: Sequence[str]) -> list[float]:
        """The cosine of each text and its reference, 0 to 1; 0 where one of them is empty."""
        pairs = [(a.strip(), b.strip()) for a, b in zip(texts, references, strict=True)]
        if new := list(
            dict.fromkeys(text for pair in pairs if all(pair) for text in pair if text not in self._vectors)
        ):
            self._vectors |= dict(zip(new, self._embedder.encode(new), strict=True))
        return [min(1.0, max(0.0, float(self._vectors[a] @ self._vectors[b]))) if a and b else 0.0 for a, b in pairs]
