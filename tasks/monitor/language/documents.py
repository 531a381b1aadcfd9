"""Staleness of a release's documents: what changed at the source since it was built, and what is old."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from tasks.core.display import escape_markdown
from tasks.knowledge.answers.answerer import INDEX, SETTINGS, AnswerSettings
from tasks.knowledge.documents.document import load_documents
from tasks.knowledge.index.manifest import PASSAGES
from tasks.knowledge.index.split import split_document
from tasks.language.embedder import Embedder
from tasks.monitor.results import DatedDocument, DocumentReview

LISTED = 20  # documents of each list


def review_documents(release: Path, documents: Mapping[str, Path], as_of: datetime) -> DocumentReview:
    """Compare the passages in a release's folder with those that its splitter makes of a snapshot's documents.

    documents: Parquet file of each collection. A document's age is what it says of itself, at `as_of`.
    """
    settings = AnswerSettings.model_validate_json((release / SETTINGS).read_bytes())
    tokens = Embedder(release / "embedder").tokens
    released = passages_by_document(release / INDEX)
    current: dict[str, set[str]] = {}
    dated: list[DatedDocument] = []
    for document in load_documents(documents):
        passages = split_document(document, settings.knowledge.split, tokens)
        current[document.document_id] = {passage.passage_id for passage in passages}
        if document.modified is not None:
            dated.append(DatedDocument(document=document.document_id, days=(as_of - document.modified).days))
    dated.sort(key=lambda each: (-each.days, each.document))
    return DocumentReview(
        documents=len(current),
        added=tuple(sorted(name for name in current.keys() - released.keys() if current[name])),
        changed=tuple(sorted(name for name in current.keys() & released.keys() if current[name] != released[name])),
        removed=tuple(sorted(released.keys() - current.keys())),
        undated=len(current) - len(dated),
        oldest=tuple(dated[:LISTED]),
    )


def passages_by_document(index: Path) -> dict[str, set[str]]:
    """The ids of the passages of each document of an index."""
    passages: defaultdict[str, set[str]] = defaultdict(set)
    with contextlib.closing(sqlite3.connect(f"file:{index / PASSAGES}?mode=ro&immutable=1", uri=True)) as db:
        for passage, document in db.execute("SELECT passage_id, document FROM passages"):
            passages[document].add(passage)
    return dict(passages)


def as_markdown(review: DocumentReview) -> list[str]:
    """Paragraphs for a person."""
    lines = [f"{review.summary}. {review.undated:,} of {review.documents:,} documents state no date."]
    changes = [("added", review.added), ("changed", review.changed), ("removed", review.removed)]
    if stale := [f"| {kind} | {escape_markdown(name)} |" for kind, names in changes for name in names[:LISTED]]:
        lines += ["## Newer than the release", "\n".join(["| since the release | document |", "|---|---|", *stale])]
    if review.oldest:
        rows = [f"| {each.days:,} | {escape_markdown(each.document)} |" for each in review.oldest]
        lines += ["## Oldest documents", "\n".join(["| days | document |", "|---|---|", *rows])]
    return lines
