"""Counts the cells that stand for a missing value, by column and word, and those with blanks around their text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tasks.core.duckdb import quote_literal
from tasks.data.reading.cells import is_nan
from tasks.data.reading.table import GROUP, Table

if TYPE_CHECKING:
    import duckdb


def count_missing(db: duckdb.DuckDBPyConnection, table: Table) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """The counts of missing values by column and word, and of trimmed cells by column; by groups of columns."""
    missing: dict[str, dict[str, int]] = {}
    trimmed: dict[str, int] = {}
    names = list(table.columns)
    for start in range(0, len(names), GROUP):
        words, blanks = _count_group(db, table.only(names[start : start + GROUP]))
        missing |= words
        trimmed |= blanks
    return missing, trimmed


def _count_group(db: duckdb.DuckDBPyConnection, table: Table) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    words = [(name, word, count) for name in table.columns for word, count in _words(table, name)]
    blanks = [
        (name, f"count(*) FILTER (r{number} <> t{number})")
        for number, name in enumerate(table.columns)
        if any(cell.has_blanks for cell in table.cells(name))
    ]
    if not words:
        return {}, {}
    counts = ", ".join([*(count for *_, count in words), *(count for _, count in blanks)])
    row = iter(db.execute(f"SELECT {counts} FROM {table.texts()} WHERE b IS NULL").fetchall()[0])
    missing: dict[str, dict[str, int]] = {}
    for name, word, _ in words:
        if count := next(row):
            missing.setdefault(name, {})[word] = count
    return missing, {name: count for name, _ in blanks if (count := next(row))}


def _words(table: Table, name: str) -> Iterator[tuple[str, str]]:
    """The words of a column with SQL that counts them; the empty field stands for null, too."""
    number, column = table.numbers[name], table.columns[name]
    if table.is_native(name):
        if any(cell.nan for cell in table.cells(name)):
            yield "", f"count(*) FILTER (n{number} IS NULL)"
            yield "nan", f"count(*) FILTER (n{number})"
        else:
            yield "", f"count(*) - count(v{number})"
        return
    text = f"t{number}"
    empty = f"{text} IS NULL OR {text} = ''" if "" in table.typing.missing else f"{text} IS NULL"
    yield "", f"count(*) FILTER ({empty})"
    for word in table.typing.missing:
        if word:
            yield word, f"count(*) FILTER ({text} = {quote_literal(word)})"
    if column and column.type == "number" and "nan" not in table.typing.missing:
        yield "nan", f"count(*) FILTER ({is_nan(text)})"
