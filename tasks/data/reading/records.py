"""Creates the tables of all records that a source's files hold: their values, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tasks.core.duckdb import quote_identifier, quote_literal
from tasks.data.reading.cells import REASONS
from tasks.data.reading.delimited import DelimitedScan, with_rejects
from tasks.data.reading.json_records import JsonScan
from tasks.data.reading.report import RejectedRow
from tasks.data.reading.scan import Scan
from tasks.data.reading.table import GROUP, Table

if TYPE_CHECKING:
    import duckdb


def stage(db: duckdb.DuckDBPyConnection, scan: Scan, place: int) -> Scan:
    """A scan of the same texts from a table, so that a file that several queries read is parsed once."""
    if not isinstance(scan, DelimitedScan | JsonScan):
        return scan
    db.execute(f"CREATE TABLE file_{place} AS FROM {_listing(scan, place).relation}")
    return replace(scan, relation=f"file_{place}")


def rejects_table(place: int) -> str:
    """The table of the lines of a file that DuckDB rejects."""
    return f"rejects_{place}"


def _listing(scan: Scan, place: int) -> Scan:
    return with_rejects(scan, rejects_table(place)) if isinstance(scan, DelimitedScan) else scan


def create_values(db: duckdb.DuckDBPyConnection, table: Table, nested: Collection[str]) -> None:
    """Create the view `record_values` (ordinal, v0, v1, ..., f, fault) of all records, and `raw` of those that landed.

    nested: columns whose values `raw` has as JSON.
    """
    table = replace(table, scans=[_listing(scan, place) for place, scan in enumerate(table.scans)])
    names = list(table.columns)
    parts = [names[start : start + GROUP] for start in range(0, len(names), GROUP)]
    values, faults = [], []
    for part, group in enumerate(parts):
        db.execute(f"CREATE TABLE part_{part} AS {table.only(group).values()}")
        first = part * GROUP
        values += [f"part_{part}.v{number} AS v{first + number}" for number in range(len(group))]
        fault = f"part_{part}.fault"
        moved = f"{{'number': {fault}.number + {first}, 'text': {fault}.text}}"
        faults.append(f"CASE WHEN {fault} IS NOT NULL THEN {moved} END" if part else fault)
    columns = ", ".join(["part_0.rowid AS ordinal", *values, "part_0.f", f"coalesce({', '.join(faults)}) AS fault"])
    joined = " POSITIONAL JOIN ".join(f"part_{part}" for part in range(len(parts)))
    db.execute(f"CREATE VIEW record_values AS SELECT {columns} FROM {joined}")
    named = ", ".join(
        f"v{number}{'::JSON' if name in nested else ''} AS {quote_identifier(name)}"
        for name, number in table.numbers.items()
    )
    db.execute(f"CREATE VIEW raw AS SELECT {named} FROM record_values WHERE fault IS NULL")


def create_records(db: duckdb.DuckDBPyConnection, table: Table, lost: Sequence[tuple[int, RejectedRow]]) -> None:
    """Create the view `records`: place (from 0, in the files' order), v0, v1, ..., error (null for what landed).

    lost: the lines without fields, each with the number of records with fields before it.
    """
    reasons = ["", *(f"{name} {REASONS[column.type]}: " for name, column in table.columns.items() if column)]
    reason = f"[{', '.join(map(quote_literal, reasons))}][fault.number + 2]"
    values = ", ".join(f"v{number}" for number in table.numbers.values())
    error = f"CASE WHEN fault IS NOT NULL THEN {reason} || coalesce(fault.text, '') END AS error"
    if not lost:
        db.execute(f"CREATE VIEW records AS SELECT ordinal AS place, {values}, {error} FROM record_values")
        return
    db.execute("CREATE TABLE lost (ordinal BIGINT, line BIGINT, error VARCHAR)")
    rows = [(before, row.line, f"line {row.line}: {row.reason}: {row.text}") for before, row in lost]
    db.executemany("INSERT INTO lost VALUES ($1, $2, $3)", rows)
    every = f"SELECT ordinal, NULL::BIGINT AS line, {values}, {error} FROM record_values UNION ALL BY NAME FROM lost"
    place = "row_number() OVER (ORDER BY ordinal, line NULLS LAST) - 1 AS place"
    db.execute(f"CREATE VIEW records AS SELECT {place}, {values}, error FROM ({every}) ORDER BY place")
