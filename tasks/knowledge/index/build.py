"""Builds the index of a case's documents: passages, an index of words, and vectors."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.code_digest import cache_key
from tasks.core.errors import DataError
from tasks.core.files import atomic_path, file_digest
from tasks.core.progress import mark_cached
from tasks.data.results import EmbedderFiles
from tasks.knowledge.config import Knowledge, Splitter
from tasks.knowledge.documents.document import Document, load_documents
from tasks.knowledge.documents.markdown import plain
from tasks.knowledge.index.manifest import FILES, MANIFEST, OWNERS, PASSAGES, SENTENCES, VECTORS, read_manifest
from tasks.knowledge.index.split import split_document
from tasks.knowledge.index.vector_cache import VectorCache
from tasks.knowledge.results import KnowledgeIndex, Passage
from tasks.language.content_words import sentences as sentences_of

if TYPE_CHECKING:
    import numpy as np

    from tasks.language.embedder import Embedder

NAME = "knowledge"  # folder in the state folder
SHORTEST_SENTENCE = 3  # words
SCHEMA = """
PRAGMA page_size = 4096; PRAGMA encoding = 'UTF-8';
CREATE TABLE passages (
    id INTEGER PRIMARY KEY, passage_id TEXT, document TEXT, title TEXT, heading TEXT, url TEXT, text TEXT, labels TEXT
);
CREATE VIRTUAL TABLE words USING fts5 (
    title, heading, text, content = passages, content_rowid = id, tokenize = 'porter unicode61 remove_diacritics 2'
);
"""


def build_index(
    case: str, documents: Mapping[str, Path], knowledge: Knowledge, embedder: EmbedderFiles, state: Path
) -> KnowledgeIndex:
    """The index of a snapshot's documents, written once for equal inputs; only new passages are embedded.

    documents: Parquet file of each collection, as a snapshot has them. Indexes of other documents of the case, and
    vectors of passages that are gone, are removed.
    """
    inputs = {name: file_digest(path) for name, path in sorted(documents.items())}
    digest = cache_key(__name__, [inputs, knowledge.split.digest, embedder.digest])
    home = state / NAME / case
    folder = home / digest[:20]
    with contextlib.suppress(DataError):
        existing = read_manifest(folder)
        mark_cached()
        _remove_others(folder)  # which a killed build left
        return existing
    from tasks.language.embedder import Embedder

    model = Embedder(embedder.folder, embedder.tokenizer)
    texts = list(load_documents(documents))
    passages = split_all(texts, knowledge.split, model)
    units = [(place, text) for place, passage in enumerate(passages) for text in sentence_texts(passage)]
    with VectorCache(home / "vectors.sqlite", embedder.digest) as cache:
        vectors = cache.encode([embedded_text(passage) for passage in passages], model)
        sentences = cache.encode([text for _, text in units], model)
        cache.prune()
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier attempt, damaged since
    with atomic_path(folder) as out:
        out.mkdir()
        write_passages(passages, out / PASSAGES)
        write_vectors(vectors, sentences, [place for place, _ in units], out)
        index = KnowledgeIndex(
            folder=folder,
            digest=digest,
            documents=len(texts),
            passages=len(passages),
            embedder=embedder.digest,
            files={name: file_digest(out / name) for name in FILES},
        )
        (out / MANIFEST).write_text(index.model_dump_json(indent=1, exclude={"folder"}), encoding="utf-8")
    _remove_others(folder)
    return index


def _remove_others(folder: Path) -> None:
    """Remove the case's indexes of other documents."""
    for other in folder.parent.iterdir():
        if other.is_dir() and other != folder:
            shutil.rmtree(other)


def newest_index(case: str, state: Path) -> KnowledgeIndex | None:
    """The index of a case's last build; None when there is none, or it is damaged."""
    for folder in sorted((state / NAME / case).glob("*/"), key=lambda path: -path.stat().st_mtime):
        with contextlib.suppress(DataError):
            return read_manifest(folder)
    return None


def split_all(documents: Sequence[Document], splitter: Splitter, model: Embedder) -> list[Passage]:
    """The passages of all documents, in the order of the documents."""
    return [passage for document in documents for passage in split_document(document, splitter, model.tokens)]


def embedded_text(passage: Passage) -> str:
    """What the embedder reads of a passage: its headings, too, since a paragraph alone often lacks its subject."""
    return f"{passage.title}. {passage.heading.replace(' > ', '. ')}\n{plain(passage.text)}"


def sentence_texts(passage: Passage) -> list[str]:
    """What the embedder reads of each sentence, list item and table row of a passage.

    A vector of a whole passage is a mean over its words, in which one sentence that answers hardly shows. A passage
    of one sentence needs no other vector.
    """
    subject = (passage.heading or passage.title).split(" > ")[-1]
    units = [plain(sentence) for sentence in sentences_of(passage.text)]
    texts = [f"{subject}: {unit}" for unit in units if len(unit.split()) >= SHORTEST_SENTENCE]
    return texts if len(texts) > 1 else []


def write_passages(passages: Sequence[Passage], path: Path) -> None:
    """Write passages and their words into a new SQLite file; equal passages give equal bytes."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(SCHEMA)
        db.executemany(
            "INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (i, p.passage_id, p.document, p.title, p.heading, p.url, p.text, json.dumps(sorted(p.labels)))
                for i, p in enumerate(passages)
            ],
        )
        db.execute("INSERT INTO words (words) VALUES ('rebuild')")
        db.execute("INSERT INTO words (words) VALUES ('optimize')")
        db.commit()
        db.execute("VACUUM")


def write_vectors(passages: np.ndarray, sentences: np.ndarray, owners: Sequence[int], folder: Path) -> None:
    """Write the vectors of passages (float32) and of sentences (float16: they only refine), and each one's passage."""
    import numpy as np

    np.save(folder / VECTORS, passages.astype(np.float32))
    np.save(folder / SENTENCES, sentences.astype(np.float16))
    np.save(folder / OWNERS, np.asarray(owners, np.int32))
