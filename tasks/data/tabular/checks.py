"""A source's expectations as checks: how each is put to Great Expectations so that it stays cheap on many rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.duckdb import quote_identifier, scan_parquet
from tasks.core.errors import DataError
from tasks.data.config import Expectation, Source
from tasks.data.tabular.expectations import STRUCTURE, UNIQUE, build, columns_of, is_row_level
from tasks.data.tabular.gx_runner import Check
from tasks.data.tabular.quarantine import count_name, lookup_name

if TYPE_CHECKING:
    import duckdb

BATCH_COLUMNS = ("batch", "rows", "first", "last", "hours_since_last")


@dataclass(frozen=True)
class Checks:
    structure: list[Check]  # of columns and types: asked first, since rows of another shape crash the others
    rows: list[Check]
    batches: list[Check]  # of the table of batches

    @property
    def all(self) -> list[Check]:
        return [*self.structure, *self.rows, *self.batches]


def make_checks(db: duckdb.DuckDBPyConnection, source: str, config: Source, references: Mapping[str, Path]) -> Checks:
    """Number the stated expectations, and those on the key, which always hold; the view `plain` has the columns.

    Raises: DataError when a column or a reference is missing; CaseError when an expectation is not valid.
    """
    columns = [name for (name, *_) in db.execute("DESCRIBE plain").fetchall()]
    checks = Checks([], [], [])
    stated = [*_on_key(config), *(e for e in config.expectations if not _is_on_key(e, config))]
    for at, expectation in enumerate(stated):
        if expectation.expect in STRUCTURE:
            checks.structure.append(_as_stated(at, source, expectation))
            continue
        _require_columns(f"Source {source}", expectation, columns)
        if expectation.expect in UNIQUE and not {"row_condition", "ignore_row_if"} & set(expectation.arguments):
            checks.rows.append(_counted(at, source, expectation))
        elif expectation.values_of and expectation.expect == "column_values_to_be_in_set":
            reference_of(source, expectation, references)
            checks.rows.append(_looked_up(at, source, expectation))
        elif expectation.values_of:
            values = _values(db, expectation, reference_of(source, expectation, references))
            checks.rows.append(_as_stated(at, source, expectation, value_set=values))
        else:
            checks.rows.append(_as_stated(at, source, expectation))
    for at, expectation in enumerate(config.batch_expectations, start=len(stated)):
        _require_columns(f"The table of batches of {source}", expectation, BATCH_COLUMNS)
        checks.batches.append(_as_stated(at, source, expectation))
    return checks


def reference_of(source: str, expectation: Expectation, references: Mapping[str, Path]) -> Path:
    """Where the table lies that `values_of` names."""
    table = str(expectation.values_of).partition(".")[0]
    if table not in references:
        raise DataError(
            f"Source {source} is checked against {table}, of which there is no data.",
            where=f"expectation {expectation.expect}, values_of {expectation.values_of}",
            found=", ".join(references) or "no other table",
            todo=f"Prepare {table} first, or correct values_of in case.yaml.",
        )
    return references[table]


def _on_key(config: Source) -> Iterator[Expectation]:
    """What holds of a key even if nobody states it; a stated reason is kept."""
    given = {e.arguments.get("column") for e in config.expectations if e.expect == "column_values_to_not_be_null"}
    for column in config.key:
        if column not in given:
            yield _expectation("column_values_to_not_be_null", "part of the key", column=column)
    reasons = [e.why for e in config.expectations if _is_on_key(e, config) and e.why]
    why = (reasons or ["the key names one row"])[0]
    if len(config.key) == 1:
        yield _expectation("column_values_to_be_unique", why, column=config.key[0])
    else:
        yield _expectation("compound_columns_to_be_unique", why, column_list=list(config.key))


def _is_on_key(expectation: Expectation, config: Source) -> bool:
    """Whether it says what is checked anyway, or less."""
    return expectation.expect in UNIQUE and set(columns_of(expectation)) == set(config.key)


def _expectation(kind: str, why: str, severity: str = "critical", **arguments: object) -> Expectation:
    return Expectation.model_validate({"expect": kind, "why": why, "severity": severity, **arguments})


def _as_stated(at: int, source: str, expectation: Expectation, **changes: object) -> Check:
    asked = build(source, expectation, **changes)
    return Check(at, expectation, asked, columns_of(expectation), is_row_level(asked))


def _counted(at: int, source: str, expectation: Expectation) -> Check:
    """DuckDB counts rows with the same values once; Great Expectations would join the table with itself."""
    columns = columns_of(expectation)
    name, mostly = count_name(columns), expectation.arguments.get("mostly", 1)
    ask = {"column": name, "min_value": 1, "max_value": 1, "mostly": mostly}
    asked = build(
        source,
        _expectation("column_values_to_be_between", expectation.why, expectation.severity, **ask),
        description=f"No two rows have the same {', '.join(columns)}.",
    )
    return Check(at, expectation, asked, columns, row_level=True, counted=name)


def _looked_up(at: int, source: str, expectation: Expectation) -> Check:
    """DuckDB looks the values up; Great Expectations would copy a set of thousands of them a thousand times."""
    (column,), reference = columns_of(expectation), str(expectation.values_of)
    others = {name: value for name, value in expectation.arguments.items() if name != "column"}
    pair = {"column_A": column, "column_B": lookup_name(column, reference)}
    ask = _expectation(
        "column_pair_values_to_be_equal", expectation.why, expectation.severity, **pair, **others,
        ignore_row_if="both_values_are_missing",
    )  # fmt: skip
    asked = build(source, ask, description=f"Values of {column} are among those of {reference}.")
    return Check(at, expectation, asked, (column,), row_level=True, looked_up=True)


def _values(db: duckdb.DuckDBPyConnection, expectation: Expectation, path: Path) -> list:
    column = quote_identifier(str(expectation.values_of).partition(".")[2])
    found = db.execute(f"SELECT DISTINCT {column} FROM {scan_parquet(path)} WHERE {column} IS NOT NULL ORDER BY ALL")
    return [value for (value,) in found.fetchall()]


def _require_columns(what: str, expectation: Expectation, columns: Sequence[str]) -> None:
    if lacking := [column for column in columns_of(expectation) if column not in columns]:
        raise DataError(
            f"{what} lacks {', '.join(lacking)}.",
            where=f"expectation {expectation.expect}",
            found=f"has: {', '.join(columns)}",
            todo="Deliver the column, or correct the name in case.yaml.",
        )
