"""What SQL in this room stands on: a snapshot's tables, and errors that say enough."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.duckdb import connect, quote_identifier, quote_literal, scan_parquet
from tasks.core.errors import CaseError
from tasks.core.files import atomic_path

if TYPE_CHECKING:
    import duckdb

    from tasks.data.results import Snapshot


def microseconds(column: str) -> str:
    """SQL for a time as microseconds since 1970 in UTC: comparing and adding numbers is exact and quick."""
    return f"epoch_us({column}::TIMESTAMPTZ)"


@contextlib.contextmanager
def open_snapshot(
    snapshot: Snapshot, writable: Path | None = None, threads: int | None = None, empty: bool = False
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB in which each source is a view, and which reads nothing else; it writes to one folder at most.

    With `empty`, sources are tables without rows, enough to see what a query would give.
    """
    sources = sorted(folder for folder in snapshot.path.iterdir() if any(folder.glob("*.parquet")))
    with connect(threads=threads) as connection:
        for source in sources:
            rows = f"FROM {scan_parquet(source, by_name=True)}"
            kind, limit = ("TABLE", "LIMIT 0") if empty else ("VIEW", "")
            connection.execute(f"CREATE {kind} {quote_identifier(source.name)} AS {rows} {limit}")
        folders = ", ".join(quote_literal(folder) for folder in (snapshot.path, writable) if folder)
        connection.execute(f"SET allowed_directories = [{folders}]")
        connection.execute("SET enable_external_access = false")
        yield connection


@contextlib.contextmanager
def dump_yaml(path: Path) -> Iterator[Path]:
    """As `whole`, for files that DuckDB writes: its errors don't tell a full disk the way Python's do."""
    import duckdb

    with atomic_path(path) as temporary:
        try:
            yield temporary
        except duckdb.IOException as error:
            if "No space left" in str(error) or "quota" in str(error):
                raise OSError(errno.ENOSPC, "No space left on device", str(path)) from error
            raise


@contextlib.contextmanager
def sql_errors(where: str) -> Iterator[None]:
    """Turn what DuckDB says of a case's SQL into a CaseError."""
    import duckdb

    try:
        yield
    except duckdb.IOException:
        raise
    except duckdb.Error as error:
        raise CaseError(
            "The SQL of a case does not run.",
            where=where,
            found=" ".join(line.strip() for line in str(error).splitlines() if line.strip(" ^")),
            allowed="DuckDB's SQL over the case's sources",
            todo="Correct the query; `driftline validate CASE` checks it.",
        ) from error


def check_sql(where: str, sql: str) -> None:
    """Raises: CaseError when it is no one query that DuckDB can read."""
    import duckdb

    with sql_errors(where):
        statements = duckdb.extract_statements(sql)
    if len(statements) != 1:
        found = f"{len(statements)} statements"
        raise CaseError("The SQL of a case is not one query.", where=where, found=found, allowed="one SELECT")
