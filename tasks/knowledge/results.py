"""What the knowledge stage hands on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tasks.core.config import Result
from tasks.data.results import EmbedderFiles
from tasks.knowledge.config import Knowledge


class KnowledgeIndex(Result):
    """An index of passages: a folder named by its digest, read by `tasks.knowledge.index.search.KnowledgeSearch`."""

    folder: Path
    digest: str  # over documents, splitter and embedder; equal inputs give equal bytes
    documents: int
    passages: int
    embedder: str  # digest of the embedder's files
    files: dict[str, str]  # SHA-256 by name


class KnowledgeSpec(Result):
    """The knowledge base of a candidate: its settings, index and embedder."""

    settings: Knowledge
    index: KnowledgeIndex
    embedder: EmbedderFiles


@dataclass(frozen=True)
class Passage:
    """A part of a document."""

    passage_id: str  # by content and place: equal in each index that has it
    document: str  # id of its document: COLLECTION/PATH
    title: str  # of the document
    heading: str  # headings above it, joined by " > "
    url: str  # address for citations, with the heading's anchor; empty: none
    text: str
    labels: tuple[str, ...] = ()  # empty: for all keys


@dataclass(frozen=True)
class Hit:
    """A passage that a search returned."""

    passage: Passage
    score: float  # of the method; only comparable within one search
    similarity: float  # of question with passage and nearest sentence, a weighted mean of cosines; by words alone 0
    words_rank: int | None = None  # place by words, from 1; None: not among those
    vectors_rank: int | None = None  # place by vectors, from 1
