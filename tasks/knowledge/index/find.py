"""Finds where a text is used: in the newest index of each case, and in the releases on this machine."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from tasks.core.config import Result
from tasks.knowledge.index.manifest import PASSAGES


class Place(Result):
    """A passage that has a text."""

    case: str
    where: str  # index, or the release's digest
    document: str
    heading: str
    passage_id: str


def find_passages(text: str, state: Path) -> list[Place]:
    """The passages of all indexes and releases that have a text; case, blanks and line breaks don't count."""
    words = _spaced(text)
    indexes = [(path.parent.parent.name, "index", path) for path in sorted(state.glob(f"knowledge/*/*/{PASSAGES}"))]
    releases = sorted(state.glob(f"releases/*/*/knowledge/{PASSAGES}"))
    indexes += [(path.parents[2].name, path.parents[1].name, path) for path in releases]
    return [
        Place(case=case, where=where, document=document, heading=heading, passage_id=passage_id)
        for case, where, path in indexes
        for passage_id, document, heading, passage in _passages(path)
        if words and words in _spaced(passage)
    ]


def _passages(path: Path) -> Iterator[tuple[str, str, str, str]]:
    uri = f"file:{quote(str(path))}?mode=ro&immutable=1"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
        yield from db.execute("SELECT passage_id, document, heading, text FROM passages ORDER BY id")


def _spaced(text: str) -> str:
    return " ".join(text.lower().split())
