"""DuckDB as we use it: in memory, in UTC, spilling into a private folder; and the quoting that SQL needs."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.files import is_alive, temporary_folder
from tasks.core.permissions import make_private

if TYPE_CHECKING:
    import duckdb

SPILL_VARIABLE = "DRIFTLINE_SPILL"  # variable: the folder for what does not fit into memory; entry points set it
_numbers = itertools.count()


def connect(*, threads: int | None = None, memory: str | None = None) -> duckdb.DuckDBPyConnection:
    """A database of its own, in memory, in which naive timestamps are UTC.

    memory: how much it may take, such as 2GB; what is beyond goes to files that are gone when it is closed.
    """
    import duckdb

    # DuckDB's default is .tmp in the current folder
    settings: dict[str, Any] = {"temp_directory": str(_spill_folder())}
    settings |= {"threads": threads} if threads else {}
    settings |= {"memory_limit": memory} if memory else {}
    connection = duckdb.connect(config=settings)
    connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    return connection


def quote_identifier(name: str) -> str:
    """A column's or table's name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(value: object) -> str:
    """A text for SQL."""
    return "'" + str(value).replace("'", "''") + "'"


def quote_path(path: Path | str) -> str:
    """The path of one file for a function of SQL that reads files and would take some characters for a pattern."""
    return quote_literal(glob.escape(str(path)))


def scan_parquet(*paths: Path | str, by_name: bool = False) -> str:
    """SQL that reads Parquet files, or all in a folder; a `str` is a pattern of DuckDB's.

    by_name: columns are matched by name; one that some files lack is null there.
    """
    # each file of a folder by its name: in a pattern DuckDB takes a backslash for a slash
    files = ", ".join(
        quote_literal(file) if isinstance(file, str) else quote_path(file) for path in paths for file in _files(path)
    )
    return f"read_parquet([{files}], hive_partitioning = false{', union_by_name = true' if by_name else ''})"


def _files(path: Path | str) -> Sequence[Path | str]:
    return sorted(path.glob("*.parquet")) if isinstance(path, Path) and path.is_dir() else [path]


def _spill_folder() -> Path:
    """A folder for one connection, which DuckDB makes when it needs it, and removes."""
    base = Path(os.environ.get(SPILL_VARIABLE) or _temporary().name)
    make_private(base)
    _remove_stale(base)
    return base / f"duckdb-{os.getpid()}-{next(_numbers)}"


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return temporary_folder("duckdb")  # goes with the process


@cache
def _remove_stale(base: Path) -> None:
    """Remove what killed processes left."""
    for folder in base.glob("duckdb-*-*"):
        with contextlib.suppress(ValueError):
            if not is_alive(int(folder.name.split("-")[1])):
                shutil.rmtree(folder, ignore_errors=True)
