"""Vectors of passages by the digest of their text, so that a refresh embeds only what changed."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from tasks.language.embedder import Embedder


class VectorCache:
    """The vectors of one case's passages, by one embedder. What was encoded before a kill is not encoded again."""

    def __init__(self, path: Path, embedder: str) -> None:
        self._embedder, self._used = embedder, set[str]()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA secure_delete = on")  # a removed vector leaves no bytes
        self._db.execute("PRAGMA journal_mode = wal")  # with synchronous = normal a vector waits for no disk, and a
        self._db.execute("PRAGMA synchronous = normal")  # killed process loses none
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS vectors "
            "(embedder TEXT, text TEXT, vector BLOB, PRIMARY KEY (embedder, text)) WITHOUT ROWID"
        )

    def __enter__(self) -> VectorCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def encode(self, texts: Sequence[str], model: Embedder) -> np.ndarray:
        """The vectors of texts. Each is encoded alone: in a batch its last bits would depend on the others."""
        import numpy as np

        vectors = np.empty((len(texts), model.size), np.float32)
        keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        known = dict(self._db.execute("SELECT text, vector FROM vectors WHERE embedder = ?", [self._embedder]))
        with model.one_thread():
            for key, text in zip(keys, texts, strict=True):
                if key not in known:
                    known[key] = model.encode([text])[0].tobytes()
                    self._db.execute("INSERT INTO vectors VALUES (?, ?, ?)", [self._embedder, key, known[key]])
        for i, key in enumerate(keys):
            vectors[i] = np.frombuffer(known[key], np.float32)
        self._used.update(keys)
        return vectors

    def prune(self) -> None:
        """Remove the vectors of texts that were not encoded since the cache was opened."""
        stored = self._db.execute("SELECT embedder, text FROM vectors").fetchall()
        gone = [(embedder, text) for embedder, text in stored if embedder != self._embedder or text not in self._used]
        self._db.executemany("DELETE FROM vectors WHERE embedder = ? AND text = ?", gone)
        if gone:
            self._db.execute("VACUUM")
