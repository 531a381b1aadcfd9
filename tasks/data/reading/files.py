"""Reads a source's files to the letter: into the table `raw`, with a reconciliation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.data.config import Source
from tasks.data.reading.report import ReadReport

if TYPE_CHECKING:
    import duckdb


def read_files(
    db: duckdb.DuckDBPyConnection, name: str, source: Source, files: Sequence[Path], work: Path
) -> ReadReport:
    """Create the tables `raw` and `rejected` of a source's local files; unpacked files are written to `work`.

    Without `source.columns`, all rows decide the types; `ReadReport.columns` has them. Files have one kind.
    Raises: DataError.
    """
    raise NotImplementedError
