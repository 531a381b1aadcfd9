"""The sources of a case as tables for the SQL of its templates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.duckdb import connect, quote_identifier, quote_literal, scan_parquet

if TYPE_CHECKING:
    import duckdb


@contextmanager
def source_tables(files: Mapping[str, Sequence[Path]]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB in which each source is a view over its Parquet files, and which reads no other file."""
    with connect() as db:
        for source, paths in files.items():
            db.execute(f"CREATE VIEW {quote_identifier(source)} AS FROM {scan_parquet(*sorted(paths))}")
        allowed = ", ".join(quote_literal(path) for paths in files.values() for path in paths)
        db.execute(f"SET allowed_paths = [{allowed}]")
        db.execute("SET enable_external_access = false")
        yield db


def read_rows(db: duckdb.DuckDBPyConnection, query: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
    """The rows of a query as dictionaries, with the values of JSON columns."""
    cursor = db.execute(query, list(values))
    parsers = {column: json.loads if str(type_) == "JSON" else None for column, type_, *_ in cursor.description or ()}
    return [
        {
            column: parse(value) if parse and value is not None else value
            for (column, parse), value in zip(parsers.items(), row, strict=True)
        }
        for row in cursor.fetchall()
    ]
