"""The files that a new case begins with, wherever they lie."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.data.config import Source


@dataclass(frozen=True)
class DataFiles:
    """Local copies of a source's files, and the address that the case states."""

    name: str  # for people: the last part of the address
    uri: str
    query: str
    paths: Sequence[Path]


def fetch_files(address: str, query: str, folder: Path, cache: Path) -> DataFiles:
    """Fetch what an address names; `folder` is the new case's.

    Raises: CaseError, DataError, Unavailable.
    """
    from tasks.data.origins.fetch import fetch_source

    uri = address if "://" in address else _file_uri(Path(address), folder)
    source = Source.model_validate({"uri": uri, "query": query, "key": ["row"]})
    fetched = fetch_source(source, folder, cache)
    name = re.split(r"[?#]", uri.rstrip("/"))[0].rsplit("/", 1)[-1]
    return DataFiles(name or "rows", uri, query, fetched.paths)


def _file_uri(file: Path, folder: Path) -> str:
    folder, file = folder.resolve(), file.expanduser().resolve()
    near = file.is_relative_to(folder.parents[1])  # a relative path also works in a clone
    return f"file://{os.path.relpath(file, folder) if near else file}"
