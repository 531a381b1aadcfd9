"""Finds the type of each column from all rows: the first that every value fits, else text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tasks.data.reading.cells import is_infinite
from tasks.data.reading.config import ColumnDefinition, ColumnType
from tasks.data.reading.scan import of_type
from tasks.data.reading.table import Table

if TYPE_CHECKING:
    import duckdb

SAMPLE = 2_000  # rows that suggest a type, which all rows must then confirm


def infer_columns(db: duckdb.DuckDBPyConnection, table: Table) -> dict[str, ColumnDefinition]:
    """The columns with their types; those that the table has typed stay as they are."""
    types: dict[str, ColumnType | None] = {
        name: column.type if column else _type_of_file(table, name) for name, column in table.columns.items()
    }
    candidates = {name: _candidates(table, name) for name, type_ in types.items() if type_ is None}
    suggested = _first_that_fits(db, table.limited(SAMPLE), candidates)
    guesses = {name: [type_] for name, type_ in suggested.items() if type_ is not None}
    confirmed = _first_that_fits(db, table, guesses)
    others = {name: candidates[name] for name in candidates if confirmed.get(name) is None}
    final = {**confirmed, **_first_that_fits(db, table, others)}
    return {name: table.columns[name] or of_type(type_ or final.get(name) or "text") for name, type_ in types.items()}


def _type_of_file(table: Table, name: str) -> ColumnType | None:
    """The type that the files state, or that follows from their types differing."""
    types = {cell.type for cell in table.cells(name)}
    if len(types) == 1:
        return next(iter(types))
    if "json" in types:
        return "json"
    return "timestamp" if types == {"date", "timestamp"} else "number" if types == {"integer", "number"} else "text"


def _candidates(table: Table, name: str) -> list[ColumnType]:
    first, *others = [cell.candidates for cell in table.cells(name)]
    return [type_ for type_ in first if all(type_ in other for other in others)]


def _first_that_fits(
    db: duckdb.DuckDBPyConnection, table: Table, candidates: Mapping[str, Sequence[ColumnType]]
) -> dict[str, ColumnType | None]:
    """The first candidate of each column that all its values fit; None without a value."""
    names = [name for name, types in candidates.items() if types]
    if not names:
        return {}
    counts = []
    for number, name in enumerate(names):
        for type_ in candidates[name]:
            text = f"({table.typing.present(f't{number}', type_)})"
            counts.append(f"count({text})")
            counts.append(f"count({table.typing.value(text, of_type(type_))})")
            counts.append(f"count(*) FILTER ({is_infinite(text)})" if type_ == "number" else "0")
    untyped = replace(table, columns=dict.fromkeys(names))
    row = iter(db.execute(f"SELECT {', '.join(counts)} FROM {untyped.texts()}").fetchall()[0])
    fits: dict[str, ColumnType | None] = {}
    for name in names:
        results = [(type_, next(row), next(row), next(row)) for type_ in candidates[name]]
        fits[name] = next((type_ for type_, filled, good, bad in results if good and filled == good + bad), None)
    return fits
