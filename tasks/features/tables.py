"""Makes the tables of a case's SQL from a snapshot: the examples, and one for each view."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.duckdb import quote_identifier, quote_literal, scan_parquet
from tasks.core.errors import DataError
from tasks.core.files import lock
from tasks.data.results import Snapshot
from tasks.features.schema import Table, Tables
from tasks.features.sql import dump_yaml, open_snapshot, sql_errors

if TYPE_CHECKING:
    import duckdb


def build_tables(tables: Tables, snapshot: Snapshot) -> Tables:
    """Write the tables that are not there yet.

    Raises: DataError for examples or a view that are empty, or in which a row can't be told from another.
    """
    with lock(tables.folder / ".lock", "The case's tables", wait=True):
        missing = [table for table in (tables.examples, *tables.views) if not tables.path(table).exists()]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for done in [pool.submit(_build, table, tables, snapshot) for table in missing]:
                done.result()
    return tables


def _build(table: Table, tables: Tables, snapshot: Snapshot) -> None:
    path = tables.path(table)
    keys = table.keys or tables.join_keys  # examples hold those of all views
    columns = ", ".join(f"{_cast(table, column, keys)} AS {quote_identifier(column)}" for column in table.columns)
    kept = " AND ".join(f"{quote_identifier(column)} IS NOT NULL" for column in (*table.keys, "event_timestamp"))
    rest = "ORDER BY event_timestamp, example_id" if not table.keys else f"WHERE {kept}"
    query = f"SELECT {columns} FROM (\n{table.sql}\n) {rest}"
    with (
        sql_errors(table.where),
        dump_yaml(path) as temporary,
        open_snapshot(snapshot, path.parent, threads=None if table.is_order_independent else 1) as connection,
    ):
        connection.execute(f"COPY ({query}) TO {quote_literal(temporary)} (FORMAT parquet)")
        _check_rows(connection, table, temporary)


def _cast(table: Table, column: str, keys: tuple[str, ...]) -> str:
    """Numbers become doubles, whatever a month's nulls and sizes made of them; keys stay exact; naive times are UTC."""
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
    needed = [] if table.keys else ["example_id", "event_timestamp"]
    empty = " OR ".join(f"{column} IS NULL" for column in needed) or "false"
    count, nulls = connection.execute(f"SELECT count(*), count(*) FILTER ({empty}) FROM {rows}").fetchall()[0]
    if not count and not table.keys:
        raise DataError(
            "There are no examples.",
            where=table.where,
            found="the query gives no row",
            allowed="one row an example",
            todo="Take a later as-of, or widen the query.",
        )
    if nulls:
        raise DataError(
            f"{nulls} of {count} examples have no example_id or no event_timestamp.",
            where=table.where,
            allowed="both are there in each row",
            todo="Leave such rows out in the query, or let the data's expectations put them aside.",
        )
    names = ", ".join(map(quote_identifier, unique))
    twice = connection.execute(
        f"SELECT {names}, count(*) FROM {rows} GROUP BY {names} HAVING count(*) > 1 ORDER BY ALL LIMIT 1"
    ).fetchone()
    if twice:
        named = ", ".join(f"{column}={value}" for column, value in zip(unique, twice, strict=False))
        raise DataError(
            f"Rows of {table.name} can't be told apart.",
            where=table.where,
            found=f"{twice[-1]} rows with {named}",
            allowed=f"one row for each {', '.join(unique)}",
            todo="Aggregate the query, or make the id say what tells the rows apart.",
        )
