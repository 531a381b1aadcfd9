"""Profiles a table in a handful of queries over all its columns."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tasks.core.duckdb import quote_identifier
from tasks.data.profile.results import ColumnProfile, TableProfile, Type

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

MAX_LISTED_VALUES = 30  # of a column's distinct values
MAX_SAMPLED_CELLS, MAX_SAMPLED_ROWS, MIN_SAMPLED_ROWS = 6_000_000, 20_000, 4_000
BINS, EXAMPLES = 24, 12
_AT_ONCE = 300  # columns of one query: beyond, DuckDB plans longer than it computes
_TYPES: dict[Type, str] = {  # by DuckDB's types
    "integer": r"U?(TINY|SMALL|BIG)?INT|U?INTEGER|U?HUGEINT",
    "number": r"DECIMAL\(.*\)|FLOAT|DOUBLE",
    "boolean": "BOOLEAN",
    "timestamp": r"TIMESTAMP\w*( WITH TIME ZONE)?",
    "date": "DATE",
    "text": r"VARCHAR|ENUM\(.*\)|UUID|TIME\w*|BLOB|INTERVAL|\"NULL\"",
}


def profile_table(db: duckdb.DuckDBPyConnection, name: str) -> tuple[TableProfile, pd.DataFrame]:
    """Profile the table or view `raw`; with some of its rows, the same ones at each call."""
    from tasks.data.profile.personal import find_personal
    from tasks.data.profile.texts import read_texts

    started = time.monotonic()
    types = {column: contract_type(kind) for column, kind, *_ in db.execute("DESCRIBE raw").fetchall()}
    rows = int(db.execute("SELECT count(*) FROM raw").fetchall()[0][0])
    facts = dict(_measure_all(db, types))
    duplicates = 0
    if rows:
        # hashes of two different rows among a million are equal once in 40 million tables
        repeated = db.execute("SELECT count(*) - count(DISTINCT hash(*COLUMNS(*))) FROM raw").fetchall()[0][0]
        duplicates = int(repeated)
    _count_values(db, facts, rows)
    frame = _sample(db, rows, len(types))
    columns = {
        column: ColumnProfile(name=column, **fact, **_of_sample(frame[column], fact)) for column, fact in facts.items()
    }
    columns = read_texts(db, columns)
    columns = {
        column.name: column.model_copy(update={"personal": find_personal(column)}) for column in columns.values()
    }
    profile = TableProfile(
        name=name,
        rows=rows,
        columns=tuple(columns.values()),
        duplicates=duplicates,
        sampled=len(frame),
        seconds=round(time.monotonic() - started, 2),
    )
    return profile, frame


def contract_type(kind: str) -> Type:
    """A column's type in the words of case.yaml, from DuckDB's."""
    return next((name for name, pattern in _TYPES.items() if re.fullmatch(pattern, kind)), "json")


def _measure_all(db: duckdb.DuckDBPyConnection, types: Mapping[str, Type]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Counts, bounds and lengths of every column."""
    names = list(types)
    for start in range(0, len(names), _AT_ONCE):
        wanted = {
            (name, fact): sql
            for name in names[start : start + _AT_ONCE]
            for fact, sql in _aggregates(name, types[name])
        }
        values = db.execute(f"SELECT {', '.join(wanted.values())} FROM raw").fetchall()[0]
        facts: dict[str, dict[str, Any]] = {name: {"type": types[name]} for name in names[start : start + _AT_ONCE]}
        for (name, fact), value in zip(wanted, values, strict=True):
            facts[name][fact] = value if value is not None or fact in ("least", "most", "mean") else 0
        yield from facts.items()


def _aggregates(name: str, kind: Type) -> Iterator[tuple[str, str]]:
    column = quote_identifier(name)
    yield "missing", f"count(*) - count({column})"
    if kind == "json":
        return
    yield "distinct", f"approx_count_distinct({column})"
    if kind == "text":
        text = f"{column}::VARCHAR"
        yield "length", f"avg(length({text}))"
        yield "longest", f"max(length({text}))"
        yield "padded", f"count(*) FILTER (trim({text}) <> {text})"
        return
    yield "least", f"min({column}{'::INT' if kind == 'boolean' else ''})"
    yield "most", f"max({column}{'::INT' if kind == 'boolean' else ''})"
    if kind in ("integer", "number"):
        yield "mean", f"avg({column}::DOUBLE)"
    if kind == "number":
        yield "fractions", f"coalesce(bool_or({column}::DOUBLE <> trunc({column}::DOUBLE)), false)"
    if kind == "integer":
        yield "ascending", f"max({column})::DOUBLE - min({column})::DOUBLE = count(*) - 1 AND min({column}) IN (0, 1)"


def _count_values(db: duckdb.DuckDBPyConnection, facts: dict[str, dict[str, Any]], rows: int) -> None:
    """The values of columns with few, and whether those that may be keys are unique."""
    few = [n for n, f in facts.items() if 0 < f.get("distinct", 0) <= 1.3 * MAX_LISTED_VALUES]
    for names in _chunks(few):
        values = db.execute(f"SELECT {', '.join(f'histogram({quote_identifier(n)}::VARCHAR)' for n in names)} FROM raw")
        for name, counts in zip(names, values.fetchall()[0], strict=True):
            facts[name]["distinct"] = len(counts)
            if len(counts) <= MAX_LISTED_VALUES:
                facts[name]["counts"] = dict(sorted(counts.items(), key=lambda item: -item[1]))
    full = [n for n, f in facts.items() if not f["missing"] and f.get("distinct", 0) > 0.8 * rows]
    likely = [n for n in full if facts[n]["type"] != "number" or not facts[n]["fractions"]]
    for names in _chunks(likely):
        query = f"SELECT {', '.join(f'count(DISTINCT {quote_identifier(n)})' for n in names)} FROM raw"
        for name, count in zip(names, db.execute(query).fetchall()[0], strict=True):
            facts[name]["distinct"], facts[name]["unique"] = count, count == rows
    for fact in facts.values():
        fact["distinct"] = min(fact.get("distinct", 0), rows - fact["missing"])
        fact["ascending"] = bool(fact.get("ascending")) and bool(fact.get("unique"))


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    yield from (names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE))


def _sample(db: duckdb.DuckDBPyConnection, rows: int, columns: int) -> pd.DataFrame:
    size = max(MIN_SAMPLED_ROWS, min(MAX_SAMPLED_ROWS, MAX_SAMPLED_CELLS // max(columns, 1)))
    if rows <= size:
        everything: pd.DataFrame = db.sql("FROM raw").df()
        return everything
    threads = db.execute("SELECT current_setting('threads')").fetchall()[0][0]
    db.execute("SET threads = 1")  # with several, a seed repeats nothing
    try:
        some: pd.DataFrame = db.sql(f"FROM raw USING SAMPLE reservoir({size} ROWS) REPEATABLE (1)").df()
        return some
    finally:
        db.execute(f"SET threads = {threads}")


def _of_sample(values: pd.Series, fact: Mapping[str, Any]) -> dict[str, Any]:
    """Examples, and of numbers a histogram, of texts their words."""
    import numpy as np

    some = values.dropna()
    examples = tuple(str(value)[:200] for value in some.drop_duplicates().head(EXAMPLES))
    if fact["type"] in ("integer", "number", "boolean"):
        numbers = some.to_numpy("float64")
        numbers = numbers[np.isfinite(numbers)]
        bins = np.histogram(numbers, BINS)[0] if len(numbers) else ()
        deviation = float(numbers.std()) if len(numbers) else None
        return {"bins": tuple(map(int, bins)), "examples": examples, "deviation": deviation}
    if fact["type"] in ("timestamp", "date") and len(some):
        moments = some.to_numpy("datetime64[s]").astype("int64")
        return {"bins": tuple(map(int, np.histogram(moments, BINS)[0])), "examples": examples}
    if fact["type"] == "text":
        words = some.head(500).astype(str).str.count(r"\S+").mean()
        return {"words": round(float(words), 2) if len(some) else 0.0, "examples": examples}
    return {"examples": examples}
