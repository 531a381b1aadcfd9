"""The database that a case's SQL runs in: the tables of a snapshot, and errors that name the query."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.duckdb import connect, quote_identifier, quote_literal, scan_parquet
from tasks.core.errors import CaseError

if TYPE_CHECKING:
    import duckdb

    from tasks.data.results import Snapshot


def microseconds(column: str) -> str:
    """SQL for a time as microseconds since 1970 in UTC: comparing and adding numbers is exact and quick."""
    return f"epoch_us({column}::TIMESTAMPTZ)"


@contextlib.contextmanager
def open_snapshot(snapshot: Snapshot, writable: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB in which each source is a view, and which reads no other file; it writes to one folder at most.

    It has one thread: several take rows in any order, and floats summed in another order differ in the last digit.
    """
    sources = sorted(folder for folder in snapshot.path.iterdir() if any(folder.glob("*.parquet")))
    with connect(threads=1) as connection:
        for source in sources:
            connection.execute(
                f"CREATE VIEW {quote_identifier(source.name)} AS FROM {scan_parquet(source, by_name=True)}"
            )
        folders = ", ".join(quote_literal(folder) for folder in (snapshot.path, writable) if folder)
        connection.execute(f"SET allowed_directories = [{folders}]")
        connection.execute("SET enable_external_access = false")
        yield connection


@contextlib.contextmanager
def sql_errors(where: str) -> Iterator[None]:
    """Turn DuckDB's errors about a case's SQL into a CaseError."""
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
    """Raises: CaseError unless DuckDB can parse it as exactly one query."""
    import duckdb

    with sql_errors(where):
        statements = duckdb.extract_statements(sql)
    if len(statements) != 1:
        found = f"{len(statements)} statements"
        raise CaseError("The SQL of a case is not one query.", where=where, found=found, allowed="one SELECT")
