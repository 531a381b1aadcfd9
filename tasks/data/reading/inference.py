"""Finds the type of each column from all rows: the first that every value fits, else text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tasks.data.reading.cells import DATE, INFINITE, MOMENT, NAN, NUMBER, WHOLE, is_infinite
from tasks.data.reading.config import ColumnDefinition, ColumnType
from tasks.data.reading.scan import of_type
from tasks.data.reading.table import GROUP, Table

if TYPE_CHECKING:
    import duckdb

SAMPLE = 500  # rows that rule types out before all rows decide: DuckDB takes a millisecond to plan each pattern
PATTERNS: dict[ColumnType, str] = {  # what every value of a type matches
    "integer": WHOLE,
    "number": f"{NUMBER}|{INFINITE}|{NAN}",
    "boolean": "true|false",
    "date": DATE,
    "timestamp": MOMENT,
}


def infer_columns(db: duckdb.DuckDBPyConnection, table: Table) -> dict[str, ColumnDefinition]:
    """The columns with their types; those that the table has typed stay as they are."""
    types: dict[str, ColumnType | None] = {
        name: column.type if column else _type_of_file(table, name) for name, column in table.columns.items()
    }
    candidates = {name: _candidates(table, name) for name, type_ in types.items() if type_ is None}
    possible = _possible(db, table, candidates)
    confirmed = _first_that_fits(db, table, {name: each[:1] for name, each in possible.items()})
    others = {name: each[1:] for name, each in possible.items() if confirmed.get(name) is None}
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


def _possible(
    db: duckdb.DuckDBPyConnection, table: Table, candidates: Mapping[str, Sequence[ColumnType]]
) -> dict[str, Sequence[ColumnType]]:
    """The candidates of each column that no text among the first rows rules out."""
    names = [name for name, types in candidates.items() if types]
    if not names:
        return {}
    texts = ", ".join(f"t{number}" for number in range(len(names)))
    untyped = replace(table, columns=dict.fromkeys(names)).limited(SAMPLE)
    columns = zip(*db.execute(f"SELECT {texts} FROM {untyped.texts()}").fetchall(), strict=True)
    values = {
        name: {str(text) for text in column if text is not None} for name, column in zip(names, columns, strict=False)
    }
    point = table.typing.decimal
    patterns = {type_: text.replace(r"\.", re.escape(point)) for type_, text in PATTERNS.items()}
    missing = set(table.typing.missing)
    return {
        name: [
            type_
            for type_ in candidates[name]
            if type_ not in patterns
            or all(re.fullmatch(patterns[type_], text, re.IGNORECASE) for text in values.get(name, set()) - missing)
        ]
        for name in names
    }


def _first_that_fits(
    db: duckdb.DuckDBPyConnection, table: Table, candidates: Mapping[str, Sequence[ColumnType]]
) -> dict[str, ColumnType | None]:
    """The first candidate of each column that all its values fit; None without a value.

    The columns are read in groups: DuckDB takes time by the square of their number to plan a query.
    """
    fits: dict[str, ColumnType | None] = {}
    names = [name for name, types in candidates.items() if types]
    for start in range(0, len(names), GROUP):
        fits |= _fits_of_group(db, table, {name: candidates[name] for name in names[start : start + GROUP]})
    return fits


def _fits_of_group(
    db: duckdb.DuckDBPyConnection, table: Table, candidates: Mapping[str, Sequence[ColumnType]]
) -> dict[str, ColumnType | None]:
    names = list(candidates)
    texts, values, counts = [], [], []
    for number, name in enumerate(names):
        for type_ in candidates[name]:
            x, v = f"x{number}_{type_}", f"v{number}_{type_}"
            texts.append(f"{table.typing.present(f't{number}', type_)} AS {x}")
            values.append(f"{table.typing.value(x, of_type(type_))} AS {v}")
            counts += [f"count({x})", f"count({v})"]
            counts.append(f"count(*) FILTER ({is_infinite(x)})" if type_ == "number" else "0")
    untyped = replace(table, columns=dict.fromkeys(names))
    present = f"(SELECT {', '.join(texts)} FROM {untyped.texts()})"
    typed = f"(SELECT *, {', '.join(values)} FROM {present})"
    row = iter(db.execute(f"SELECT {', '.join(counts)} FROM {typed}").fetchall()[0])
    fits: dict[str, ColumnType | None] = {}
    for name in names:
        results = [(type_, next(row), next(row), next(row)) for type_ in candidates[name]]
        fits[name] = next((type_ for type_, filled, good, bad in results if good and filled == good + bad), None)
    return fits
