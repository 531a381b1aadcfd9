"""Profiles a file column by column, to generate a case for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.core.config import Result
from tasks.core.duckdb import connect, quote_identifier
from tasks.core.errors import DataError
from tasks.core.files import temporary_folder
from tasks.data.sources import read_raw

if TYPE_CHECKING:
    import duckdb

MAX_LISTED_VALUES = 30  # of a column's distinct values


Kind = Literal["number", "text", "boolean", "time", "other"]
KINDS: dict[Kind, str] = {  # by DuckDB's types
    "number": r"U?(TINY|SMALL|BIG|HUGE)?INT|U?INTEGER|DECIMAL\(.*\)|FLOAT|DOUBLE",
    "text": r"VARCHAR|ENUM\(.*\)",
    "boolean": "BOOLEAN",
    "time": r"TIMESTAMP\w*( WITH TIME ZONE)?|DATE",
}


class ColumnProfile(Result):
    """One column of a file."""

    name: str
    kind: Kind
    whole: bool  # of numbers: all without a fraction
    empty: int  # rows without a value
    distinct: int
    least: Any
    most: Any
    values: tuple[Any, ...]  # the distinct values in order, of columns with few


def profile_file(path: Path) -> tuple[int, list[ColumnProfile]]:
    """The number of rows of a .csv, .parquet, .json or .jsonl file, which may be in a .zip, and its columns.

    Raises: DataError when it can't be read.
    """
    with _open_raw(path) as db:
        rows = db.execute("SELECT count(*) FROM raw").fetchall()[0][0]
        return rows, [_profile_column(db, name, type_) for name, type_, *_ in db.execute("DESCRIBE raw").fetchall()]


def read_file(path: Path) -> list[dict[str, Any]]:
    """All rows of such a file.

    Raises: DataError when it can't be read.
    """
    with _open_raw(path) as db:
        rows: list[dict[str, Any]] = db.sql("FROM raw").to_arrow_table().to_pylist()
        return rows


@contextmanager
def _open_raw(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    import duckdb

    with temporary_folder("profile") as work, connect() as db:
        try:
            read_raw(db, path.stem, path, Path(work))
        except duckdb.Error as error:
            found = str(error).strip().splitlines()[0]
            raise DataError("The file is no table.", where=str(path), found=found, todo="Correct it.") from error
        yield db


def _profile_column(db: duckdb.DuckDBPyConnection, name: str, type_: str) -> ColumnProfile:
    kind = next((kind for kind, pattern in KINDS.items() if re.fullmatch(pattern, type_)), "other")
    if kind == "other":
        return ColumnProfile(name=name, kind=kind, whole=False, empty=0, distinct=0, least=None, most=None, values=())
    column = quote_identifier(name)
    query = f"SELECT count(*) - count({column}), count(DISTINCT {column}), min({column}), max({column}) FROM raw"
    empty, distinct, least, most = db.execute(query).fetchall()[0]
    values = f"SELECT DISTINCT {column} FROM raw WHERE {column} IS NOT NULL ORDER BY 1 LIMIT {MAX_LISTED_VALUES}"
    return ColumnProfile(
        name=name,
        kind=kind,
        whole=kind == "number" and "INT" in type_,
        empty=empty,
        distinct=distinct,
        least=least,
        most=most,
        values=tuple(row[0] for row in db.execute(values).fetchall()) if distinct <= MAX_LISTED_VALUES else (),
    )


def quote_if_needed(name: str) -> str:
    """A column's or table's name for SQL, in quotes only if SQL requires them."""
    plain = re.fullmatch(r"[a-z_][a-z0-9_]*", name) and name not in _reserved()
    return name if plain else quote_identifier(name)


@cache
def _reserved() -> frozenset[str]:
    with connect() as db:
        query = "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'"
        return frozenset(name for (name,) in db.execute(query).fetchall())
