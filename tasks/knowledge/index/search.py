"""Searches an index: by words, by vectors, or by both."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from tasks.core.errors import DataError
from tasks.knowledge.index.manifest import OWNERS, PASSAGES, SENTENCES, VECTORS, read_manifest
from tasks.knowledge.results import Hit, Passage
from tasks.language.content_words import compounds

if TYPE_CHECKING:
    import numpy as np

    from tasks.language.embedder import Embedder

CANDIDATES = 100  # of each method, before they are merged
SMOOTHING = 10  # of reciprocal ranks; with the usual 60, the first places hardly count
# passages of a document that matches as a whole come before those that only look alike: weight of its rank, and how
# many of the best passages rank documents
DOCUMENT, RANKING = 0.5, 30
SENTENCE = 0.7  # weight of the nearest sentence's cosine in a similarity; the passage's has the rest
WORD = re.compile(r"[^\W_]+")
# words of a question that say nothing of its subject
STOP_WORDS = """
a about after all also am an and any are as at be been before being but by can could did do does doing for from
get gets give had has have having he her here him his how i if in into is it its just know let like long make
many may me might more most much must my need no nor not now of on one only or our out over own please possible
same shall she should so some such tell than that the their them then there these they this those through to too
under until up use used using very want was way we were what when where which while who whom why will with would
you your
"""


class KnowledgeSearch:
    """An opened index. Threads may share it: questions are embedded one after the other."""

    def __init__(self, folder: Path, embedder: Embedder, *, word_weight: float = 0.5) -> None:
        """`word_weight`: of the rank by words in a hybrid search; vectors have the rest.

        Raises: DataError when the index is damaged, or was built by another embedder."""
        import numpy as np

        self.index = read_manifest(folder)
        if self.index.embedder != embedder.digest:
            raise DataError(
                "The index was built by another embedder.",
                where=str(embedder.folder),
                found=embedder.digest,
                allowed=self.index.embedder,
                todo="Build the index again: driftline knowledge build CASE; or release the case again.",
            )
        self._embedder, self._lock = embedder, threading.Lock()
        self._weights = (2 * word_weight, 2 * (1 - word_weight))  # so that equal ones count 1
        self._db = sqlite3.connect(
            f"file:{quote(str(folder / PASSAGES))}?mode=ro&immutable=1", uri=True, check_same_thread=False
        )
        self._vectors: np.ndarray = np.load(folder / VECTORS, allow_pickle=False)
        self._sentences: np.ndarray = np.load(folder / SENTENCES, mmap_mode="r", allow_pickle=False)
        owners = np.load(folder / OWNERS, allow_pickle=False)
        self._first = np.searchsorted(owners, np.arange(len(self._vectors) + 1))  # sentences of passage i: [i] to [i+1]
        self._masks: dict[frozenset[str] | None, np.ndarray] = {}

    def passages(self) -> Sequence[Passage]:
        """All passages, in the order of their documents."""
        return self._passages

    def search(
        self, question: str, *, count: int = 5, method: str = "hybrid", labels: frozenset[str] | None = None
    ) -> list[Hit]:
        """The best passages for a question, best first; of equal ones the first in the order of documents.

        labels: None for all passages; else those without labels, and those that share one.
        """
        allowed = self._allowed(labels)
        with self._lock:
            words = self._by_words(question, allowed) if method != "vectors" else {}
            vector = self._embedder.encode([question])[0] if method != "words" else None
        similarities = {} if vector is None else self._similarities(vector, allowed, words)
        order = sorted(similarities, key=lambda place: (-similarities[place], place))[:CANDIDATES]
        by_vectors = {place: rank for rank, place in enumerate(order, 1)}
        if method == "words":
            scores = {place: 1 / rank for place, rank in words.items()}
        elif method == "vectors":
            scores = {place: similarities[place] for place in by_vectors}
        else:
            scores = {
                place: sum(
                    weight / (SMOOTHING + ranks[place])
                    for weight, ranks in zip(self._weights, (words, by_vectors), strict=True)
                    if place in ranks
                )
                for place in {*words, *by_vectors}
            }
            ranks = self._document_ranks(scores)
            scores = {place: score + DOCUMENT / (SMOOTHING + ranks(place)) for place, score in scores.items()}
        best = sorted(scores, key=lambda place: (-scores[place], place))[:count]
        return [
            Hit(
                self._passages[place],
                scores[place],
                similarities.get(place, 0.0),
                words.get(place),
                by_vectors.get(place),
            )
            for place in best
        ]

    def _document_ranks(self, scores: Mapping[int, float]) -> Callable[[int], int]:
        """The rank of a passage's document, by the sum of its best passages' scores, the second's half, and so on."""
        found: dict[str, list[float]] = {}
        for place in sorted(scores, key=lambda place: (-scores[place], place))[:RANKING]:
            found.setdefault(self._passages[place].document, []).append(scores[place])
        sums = {name: sum(each / rank for rank, each in enumerate(best, 1)) for name, best in found.items()}
        ranks = {name: rank for rank, name in enumerate(sorted(sums, key=lambda name: (-sums[name], name)), 1)}
        return lambda place: ranks.get(self._passages[place].document, RANKING)

    def _similarities(self, vector: np.ndarray, allowed: np.ndarray, words: Iterable[int]) -> dict[int, float]:
        """Similarity by place of the nearest passages and of those by words.

        It is the weighted mean of the question's cosines with the passage and with its nearest sentence.
        """
        import numpy as np

        cosines = self._vectors @ vector
        nearest = _largest(np.where(allowed, cosines, -np.inf), min(CANDIDATES, int(allowed.sum())))
        places = np.union1d(nearest, np.fromiter(words, np.int64))
        first, last = self._first[places], self._first[places + 1]
        counts = last - first
        rows = np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        of_sentences = self._sentences[rows].astype(np.float32) @ vector
        similarities = cosines[places]
        split = counts > 0  # a passage of one sentence has no vector of it
        if split.any():
            starts = (np.cumsum(counts) - counts)[split]
            best = np.maximum.reduceat(of_sentences, starts)
            similarities[split] = (1 - SENTENCE) * similarities[split] + SENTENCE * best
        return dict(zip(places.tolist(), similarities.tolist(), strict=True))

    def _by_words(self, question: str, allowed: np.ndarray) -> dict[int, int]:
        """Rank by place of passages that share a word with the question."""
        if not (query := words_query(question)):
            return {}
        limit = CANDIDATES if allowed.all() else -1
        rows = self._db.execute(
            "SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words), rowid LIMIT ?", [query, limit]
        )
        places = (place for (place,) in rows if allowed[place])
        return {place: rank for rank, place in enumerate(islice(places, CANDIDATES), 1)}

    def _allowed(self, labels: frozenset[str] | None) -> np.ndarray:
        """Which passages may be returned: a mask over all."""
        import numpy as np

        known = labels if labels is None else labels & self._labels  # others would let the memory grow
        if known not in self._masks:
            rows = (known is None or not p.labels or not known.isdisjoint(p.labels) for p in self._passages)
            self._masks[known] = np.fromiter(rows, bool, len(self._passages))
        return self._masks[known]

    @cached_property
    def _labels(self) -> frozenset[str]:
        return frozenset(label for passage in self._passages for label in passage.labels)

    @cached_property
    def _passages(self) -> list[Passage]:
        columns = ("passage_id", "document", "title", "heading", "url", "text", "labels")
        rows = self._db.execute(f"SELECT {', '.join(columns)} FROM passages ORDER BY id")
        values = (dict(zip(columns, row, strict=True)) for row in rows)
        return [Passage(**{**each, "labels": tuple(json.loads(each["labels"]))}) for each in values]

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.close()


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """The places of the largest values, best first, of equal ones the first; without sorting all."""
    import numpy as np

    if not 0 < count < len(values):
        return np.argsort(-values, kind="stable")[:count]
    least = np.partition(values, -count)[-count]
    places = np.flatnonzero(values >= least)
    return places[np.argsort(-values[places], kind="stable")][:count]


def words_query(question: str) -> str:
    """A question as a query of FTS5: any of its words and compounds, each quoted, so that none is an operator."""
    stop_words = frozenset(STOP_WORDS.split())
    words = [word.lower() for word in WORD.findall(question)]
    content = [word for word in words if word not in stop_words] or words
    return " OR ".join(f'"{word}"' for word in dict.fromkeys([*content, *compounds(words)]))
