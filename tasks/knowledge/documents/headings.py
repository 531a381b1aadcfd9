"""Headings of documents, as messages for a case without questions."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path

from tasks.knowledge.documents.document import load_documents
from tasks.knowledge.documents.markdown import sections

MOST = 60  # headings


def headings_of(documents: Mapping[str, Path]) -> tuple[str, ...]:
    """Headings with the title above them, evenly over the documents of Parquet files; equal files give equal ones."""
    by_document = []
    for document in load_documents(documents):
        paths = [part.path for part in sections(document.text) if part.path]
        names = [path[-1] if path[-1] == document.title else f"{document.title}: {path[-1]}" for path in paths]
        by_document.append(list(dict.fromkeys(names)) or [document.title])
    in_turn = [name for row in zip_longest(*by_document) for name in row if name]
    return tuple(dict.fromkeys(in_turn))[:MOST]
