"""Point-in-time lookups: for each row of a table, the newest row of a view that was known at that row's moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.duckdb import quote_identifier, scan_parquet
from tasks.features.sql import microseconds

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


@dataclass(frozen=True)
class Lookup:
    """One view, its keys, and the features to read from it."""

    paths: tuple[Path | str, ...]  # Parquet files; patterns, where a str
    keys: Mapping[str, str]  # column of the rows -> column of the view
    features: Mapping[str, str]  # name in the result -> column of the view
    event: str  # column: the moment that the values are about
    created: str | None  # column: when they became known; breaks ties
    ttl: timedelta | None  # how long a value is valid; None or 0: for ever


def look_up(
    connection: duckdb.DuckDBPyConnection, rows: str, moment: str, lookups: Iterable[Lookup], known_only: bool
) -> pa.Table:
    """The features of all lookups, one row for each row of the table `rows`, in its order.

    `rows` is a table in memory and `moment` its time column. With `known_only`, a value is used only from its creation
    on. A null key or moment matches nothing.
    """
    import pyarrow as pa

    lowest, highest = f"min({microseconds(moment)})", f"max({microseconds(moment)})"
    count, first, last = connection.sql(f"SELECT count(*), {lowest}, {highest} FROM {rows}").fetchall()[0]
    columns: dict[str, Any] = {}
    for lookup in lookups:
        _number_keys(connection, rows, lookup)
        _load(connection, lookup, known_only, first, last)
        matches = _match(connection, rows, moment, lookup, count)
        selected = ", ".join(quote_identifier(feature) for feature in lookup.features)
        values = connection.sql(f"SELECT {selected} FROM asof_view").to_arrow_table().combine_chunks().take(matches)
        columns.update({feature: values[feature] for feature in lookup.features})
    return pa.table(columns)


def _number_keys(connection: duckdb.DuckDBPyConnection, rows: str, lookup: Lookup) -> None:
    """Create asof_keys: a number for each combination of keys among the rows.

    ASOF JOIN sorts by all columns that must be equal: numbers sort several times faster than text, and the view's rows
    of other keys are dropped before sorting.
    """
    keys = ", ".join(map(quote_identifier, lookup.keys)) or "0 AS everything"
    known = " AND ".join(f"{quote_identifier(key)} IS NOT NULL" for key in lookup.keys) or "true"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE asof_keys AS SELECT *, row_number() OVER ()::INTEGER AS asof_k "
        f"FROM (SELECT DISTINCT {keys} FROM {rows} WHERE {known})"
    )


def _load(
    connection: duckdb.DuckDBPyConnection, lookup: Lookup, known_only: bool, first: int | None, last: int | None
) -> None:
    """Create asof_view and asof_steps.

    asof_view: the view's rows in order of event and creation, so that the newest of several has the highest rowid;
    asof_steps: the newest known row from each moment (since) on.
    """
    ttl = _to_microseconds(lookup.ttl)
    quote = quote_identifier
    event, created = (
        microseconds(quote(lookup.event)),
        microseconds(quote(lookup.created)) if lookup.created else "NULL::BIGINT",
    )
    equal = " AND ".join(f"s.{quote(column)} = q.{quote(key)}" for key, column in lookup.keys.items()) or "true"
    features = ", ".join(f"s.{quote(column)} AS {quote(feature)}" for feature, column in lookup.features.items())
    oldest = f"AND {event} >= {first - ttl}" if ttl and first is not None else ""
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE asof_view AS "
        f"SELECT q.asof_k, s.asof_event, s.asof_created, {features} "
        f"FROM (SELECT *, {event} AS asof_event, {created} AS asof_created "
        f"FROM {scan_parquet(*lookup.paths, by_name=True)} "
        f"WHERE {event} <= {last if last is not None else 'NULL'} {oldest}) s JOIN asof_keys q ON {equal} "
        f"ORDER BY asof_event, asof_created NULLS FIRST"
    )
    if known_only and lookup.created and _any_late(connection):
        # For each moment at which a row became known: the newest of all rows known by then.
        steps = (
            "SELECT DISTINCT asof_k AS k, since, max(asof_event) OVER known AS event, max(i) OVER known AS i "
            "FROM (SELECT asof_k, asof_event, rowid AS i, greatest(asof_event, asof_created) AS since FROM asof_view "
            "WHERE asof_created IS NOT NULL) WINDOW known AS (PARTITION BY asof_k ORDER BY since)"
        )
    else:
        steps = (
            "SELECT asof_k AS k, asof_event AS since, asof_event AS event, max(rowid) AS i FROM asof_view GROUP BY ALL"
        )
    connection.execute(f"CREATE OR REPLACE TEMP TABLE asof_steps AS {steps}")


def _any_late(connection: duckdb.DuckDBPyConnection) -> bool:
    late = connection.sql("SELECT bool_or(asof_created IS NULL OR asof_created > asof_event) FROM asof_view").fetchall()
    return bool(late[0][0])


def _match(connection: duckdb.DuckDBPyConnection, rows: str, moment: str, lookup: Lookup, count: int) -> pa.Array:
    """For each row the number of its row in asof_view, or null; the join sorts numbers only."""
    import numpy as np
    import pyarrow as pa

    equal = " AND ".join(f"e.{quote_identifier(key)} = q.{quote_identifier(key)}" for key in lookup.keys) or "true"
    ttl, at = _to_microseconds(lookup.ttl), microseconds(f"e.{quote_identifier(moment)}")
    valid = f"WHERE s.event + {ttl} >= e.t" if ttl else ""
    pairs = connection.sql(
        f"SELECT e.r, s.i FROM (SELECT e.rowid AS r, q.asof_k AS k, {at} AS t FROM {rows} e "
        f"JOIN asof_keys q ON {equal}) e ASOF JOIN asof_steps s ON e.k = s.k AND e.t >= s.since {valid}"
    ).fetchnumpy()
    matches = np.full(count, -1, dtype=np.int64)
    matches[pairs["r"]] = pairs["i"]
    return pa.array(matches, mask=matches < 0)


def _to_microseconds(span: timedelta | None) -> int:
    return span // timedelta(microseconds=1) if span else 0
