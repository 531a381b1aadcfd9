"""Builds the tables of a case's SQL from a snapshot: the examples, and one table per view."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.duckdb import quote_identifier, scan_parquet
from tasks.core.errors import DataError
from tasks.core.files import atomic_path, lock
from tasks.data.parquet import copy_to_parquet
from tasks.data.results import Snapshot
from tasks.features.schema import Table, Tables
from tasks.features.sql import open_snapshot, sql_errors

if TYPE_CHECKING:
    import duckdb


def build_tables(tables: Tables, snapshot: Snapshot) -> Tables:
    """Write the tables that do not exist yet, several at a time, each on one thread.

    Raises: DataError for empty examples or a view that is empty, and for rows with equal keys.
    """
    with lock(tables.folder / ".lock", "The case's tables", wait=True):
        missing = [table for table in (tables.examples, *tables.views) if not tables.path(table).exists()]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for future in [pool.submit(_build, table, tables, snapshot) for table in missing]:
                future.result()
    return tables


def _build(table: Table, tables: Tables, snapshot: Snapshot) -> None:
    path = tables.path(table)
    keys = table.keys or tables.join_keys  # examples contain the keys of all views
    columns = ", ".join(f"{_cast(table, column, keys)} AS {quote_identifier(column)}" for column in table.columns)
    complete = " AND ".join(f"{quote_identifier(column)} IS NOT NULL" for column in (*table.keys, "event_timestamp"))
    rest = "ORDER BY event_timestamp, example_id" if not table.keys else f"WHERE {complete}"
    with (
        sql_errors(table.where),
        atomic_path(path) as temporary,
        open_snapshot(snapshot, path.parent) as connection,
    ):
        copy_to_parquet(connection, f"SELECT {columns} FROM (\n{table.sql}\n) {rest}", temporary)
        _check_rows(connection, table, temporary)


def _cast(table: Table, column: str, keys: tuple[str, ...]) -> str:
    """Numbers become doubles, whatever type a month's nulls and sizes led to; keys stay exact; naive times are UTC."""
    if column == "example_id":
        return f"{quote_identifier(column)}::VARCHAR"
    kind = table.columns[column]
    number = "BIGINT" if column in keys else "DOUBLE"
    types = {"number": f"::{number}", "text": "::VARCHAR", "time": "::TIMESTAMPTZ"}
    return quote_identifier(column) + types.get(kind, "")


def _check_rows(connection: duckdb.DuckDBPyConnection, table: Table, path: Path) -> None:
    rows = scan_parquet(path)
    unique = [c for c in (*table.keys, "event_timestamp", "created_timestamp") if c in table.columns]
    unique = unique if table.keys else ["example_id"]
    required = [] if table.keys else ["example_id", "event_timestamp"]
    empty = " OR ".join(f"{column} IS NULL" for column in required) or "false"
    count, nulls = connection.execute(f"SELECT count(*), count(*) FILTER ({empty}) FROM {rows}").fetchall()[0]
    if not count and not table.keys:
        raise DataError(
            "There are no examples.",
            where=table.where,
            found="the query returns no row",
            allowed="one row per example",
            todo="Use a later as-of, or a query that returns more rows.",
        )
    if nulls:
        raise DataError(
            f"{nulls} of {count} examples have no example_id or no event_timestamp.",
            where=table.where,
            allowed="both in each row",
            todo="Exclude such rows in the query, or quarantine them with an expectation of the data.",
        )
    names = ", ".join(map(quote_identifier, unique))
    duplicate = connection.execute(
        f"SELECT {names}, count(*) FROM {rows} GROUP BY {names} HAVING count(*) > 1 ORDER BY ALL LIMIT 1"
    ).fetchone()
    if duplicate:
        values = ", ".join(f"{column}={value}" for column, value in zip(unique, duplicate, strict=False))
        raise DataError(
            f"The rows of {table.name} are not unique.",
            where=table.where,
            found=f"{duplicate[-1]} rows with {values}",
            allowed=f"one row for each {', '.join(unique)}",
            todo="Aggregate the query, or add what distinguishes the rows to the id.",
        )
