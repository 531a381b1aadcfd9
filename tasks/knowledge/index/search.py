"""Searches an index: by words, by vectors, or by both."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tasks.core.errors import DataError
from tasks.knowledge.index.manifest import OWNERS, PASSAGES, SENTENCES, VECTORS, read_manifest
from tasks.knowledge.results import Hit, Passage

if TYPE_CHECKING:
    import numpy as np

    from tasks.language.embedder import Embedder

CANDIDATES = 100  # of each method, before they are merged
SMOOTHING = 10  # of reciprocal ranks; with the usual 60, the first places hardly count
WEIGHTS = (1.0, 1.0, 1.0)  # of title, heading and text in BM25
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

    def __init__(self, folder: Path, embedder: Embedder) -> None:
        """Raises: DataError when the index is damaged, or was built by another embedder."""
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
        self._db = sqlite3.connect(
            f"file:{quote(str(folder / PASSAGES))}?mode=ro&immutable=1", uri=True, check_same_thread=False
        )
        self._vectors: np.ndarray = np.load(folder / VECTORS, allow_pickle=False)
        self._sentences: np.ndarray = np.load(folder / SENTENCES, mmap_mode="r", allow_pickle=False)
        owners = np.load(folder / OWNERS, allow_pickle=False)
        self._first = np.searchsorted(owners, np.arange(len(self._vectors) + 1))  # sentences of passage i: [i] to [i+1]
        self._masks: dict[frozenset[str] | None, Any] = {}

    def passages(self) -> Sequence[Passage]:
        """All passages, in the order of their documents."""
        return self._passages

    def search(
        self, question: str, *, count: int = 5, method: str = "hybrid", labels: frozenset[str] | None = None
    ) -> list[Hit]:
        """The best passages for a question, best first; of equal ones the first in the order of documents.

        labels: None for all passages; else those without labels, and those that share one.
        """
        import numpy as np

        allowed = self._allowed(labels)
        with self._lock:
            vector = self._embedder.encode([question])[0]
            words = self._by_words(question, allowed) if method != "vectors" else {}
        cosines = self._vectors @ vector
        ranked = np.where(allowed, cosines, -np.inf)
        nearest = np.argsort(-ranked, kind="stable")[: min(CANDIDATES, int(allowed.sum()))].tolist()
        candidates = [*words] if method == "words" else sorted({*words, *nearest})
        similarities = {place: self._similarity(place, float(cosines[place]), vector) for place in candidates}
        order = sorted(similarities, key=lambda place: (-similarities[place], place))[:CANDIDATES]
        by_vectors = {place: rank for rank, place in enumerate(order, 1)} if method != "words" else {}
        if method == "words":
            scores = {place: -float(rank) for place, rank in words.items()}
        elif method == "vectors":
            scores = {place: similarities[place] for place in by_vectors}
        else:
            scores = {
                place: sum(1 / (SMOOTHING + ranks[place]) for ranks in (words, by_vectors) if place in ranks)
                for place in {*words, *by_vectors}
            }
        best = sorted(scores, key=lambda place: (-scores[place], place))[:count]
        return [
            Hit(
                self._passages[place],
                scores[place],
                similarities[place],
                words.get(place),
                by_vectors.get(place),
            )
            for place in best
        ]

    def _similarity(self, place: int, cosine: float, vector: np.ndarray) -> float:
        """The mean of the cosines of a question with the passage and with its nearest sentence."""
        sentences = self._sentences[self._first[place] : self._first[place + 1]]
        return (cosine + float((sentences @ vector).max())) / 2 if len(sentences) else cosine

    def _by_words(self, question: str, allowed: Any) -> dict[int, int]:
        """Rank by place of passages that share a word with the question."""
        if not (query := words_query(question)):
            return {}
        rows = self._db.execute(
            f"SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words, {', '.join(map(str, WEIGHTS))}), rowid",
            [query],
        )
        ranks: dict[int, int] = {}
        for (place,) in rows:
            if allowed[place]:
                ranks[place] = len(ranks) + 1
                if len(ranks) == CANDIDATES:
                    break
        return ranks

    def _allowed(self, labels: frozenset[str] | None) -> Any:
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


def words_query(question: str) -> str:
    """A question as a query of FTS5: any of its words, each quoted, so that none is read as an operator."""
    stop_words = frozenset(STOP_WORDS.split())
    words = dict.fromkeys(word.lower() for word in WORD.findall(question))
    content = [word for word in words if word not in stop_words] or list(words)
    return " OR ".join(f'"{word}"' for word in content)
