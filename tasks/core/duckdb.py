"""DuckDB connections in memory and in UTC, with a private spill folder; and SQL quoting."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import re
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

SPILL_VARIABLE = "DRIFTLINE_SPILL"  # environment variable with the spill folder; entry points set it
_numbers = itertools.count()


def connect(*, threads: int | None = None, memory: str | None = None) -> duckdb.DuckDBPyConnection:
    """Open a new in-memory database in which naive timestamps are UTC.

    memory: the memory limit, such as 2GB; data beyond it spills to files that are removed on close.
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
    """Quote the name of a column or table for SQL."""
    return '"' + name.replace('"', '""') + '"'


def quote_if_needed(name: str) -> str:
    """Quote the name of a column or table only if SQL requires it."""
    plain = re.fullmatch(r"[a-z_][a-z0-9_]*", name) and name not in _keywords()
    return name if plain else quote_identifier(name)


@cache
def _keywords() -> frozenset[str]:
    with connect() as db:  # what is not reserved can't stand everywhere either: at::DATE is an error
        return frozenset(name for (name,) in db.execute("SELECT keyword_name FROM duckdb_keywords()").fetchall())


def quote_literal(value: object) -> str:
    """Quote a value as a SQL string."""
    return "'" + str(value).replace("'", "''") + "'"


def quote_path(path: Path | str) -> str:
    """Quote the path of one file for a SQL function that would read some characters as a glob pattern."""
    return quote_literal(glob.escape(str(path)))


def scan_parquet(*paths: Path | str, by_name: bool = False) -> str:
    """SQL that reads Parquet files, or all files of a folder; a `str` is a DuckDB glob pattern.

    by_name: match columns by name; a column is null where a file lacks it.
    """
    # list the files of a folder: in a pattern, DuckDB reads a backslash as a slash
    files = ", ".join(
        quote_literal(file) if isinstance(file, str) else quote_path(file) for path in paths for file in _files(path)
    )
    return f"read_parquet([{files}], hive_partitioning = false{', union_by_name = true' if by_name else ''})"


def _files(path: Path | str) -> Sequence[Path | str]:
    return sorted(path.glob("*.parquet")) if isinstance(path, Path) and path.is_dir() else [path]


def _spill_folder() -> Path:
    """A folder for one connection, which DuckDB creates on demand and removes."""
    base = Path(os.environ.get(SPILL_VARIABLE) or _temporary().name)
    make_private(base)
    _remove_stale(base)
    return base / f"duckdb-{os.getpid()}-{next(_numbers)}"


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return temporary_folder("duckdb")  # removed when the process ends


@cache
def _remove_stale(base: Path) -> None:
    """Remove the folders of killed processes."""
    for folder in base.glob("duckdb-*-*"):
        with contextlib.suppress(ValueError):
            if not is_alive(int(folder.name.split("-")[1])):
                shutil.rmtree(folder, ignore_errors=True)
