"""A source's expectations as Great Expectations objects, each in a form that stays cheap on many rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.duckdb import quote_identifier, scan_parquet
from tasks.core.errors import CaseError, DataError
from tasks.data.config import COLUMN_ARGUMENTS, Expectation, Source
from tasks.data.tabular.expectations import expectation_schemas, full_type, unknown_type

if TYPE_CHECKING:
    import duckdb
    from great_expectations.expectations.expectation import Expectation as GxExpectation

# answered by a table's columns and their types alone
STRUCTURE = {
    "column_to_exist",
    "column_type_to_be",
    "column_values_to_be_of_type",
    "column_values_to_be_in_type_list",
    "table_column_count_to_be_between",
    "table_column_count_to_equal",
    "table_columns_to_match_ordered_list",
    "table_columns_to_match_set",
}
UNIQUE = {"column_values_to_be_unique", "compound_columns_to_be_unique"}
BATCH_COLUMNS = ("batch", "rows", "first", "last", "hours_since_last")


@dataclass(frozen=True)
class Check:
    """An expectation as the case states it, and the Great Expectations object that computes it."""

    number: int  # its place in the list: results are matched to checks by it
    stated: Expectation
    computed: GxExpectation
    count_column: str = ""  # the validated view's column with the number of rows with the same values
    is_lookup: bool = False  # compares a value with the one found in another table

    @property
    def columns(self) -> tuple[str, ...]:
        return self.stated.columns

    @property
    def critical(self) -> bool:
        return self.stated.severity == "critical"

    @property
    def label(self) -> str:
        return " ".join([self.stated.expect, ", ".join(self.columns)]).strip()

    @property
    def row_level(self) -> bool:
        """Whether it evaluates each row by itself, so that bad rows can be separated from good ones."""
        from great_expectations.expectations import expectation as kinds

        each_row = (kinds.ColumnMapExpectation, kinds.ColumnPairMapExpectation, kinds.MulticolumnMapExpectation)
        return isinstance(self.computed, each_row)

    @property
    def allowed(self) -> str:
        """Its arguments and its reason, as the end of a sentence."""
        arguments = {name: value for name, value in self.stated.arguments.items() if name not in COLUMN_ARGUMENTS}
        if self.stated.values_of:
            arguments["one of"] = self.stated.values_of
        condition = ", ".join(f"{name} {value}" for name, value in arguments.items())
        return "; ".join(part for part in (condition, self.stated.why) if part)


@dataclass(frozen=True)
class Checks:
    structure: list[Check] = field(default_factory=list)  # of columns and types: run first, as others crash without
    rows: list[Check] = field(default_factory=list)
    batches: list[Check] = field(default_factory=list)  # of the table of batches

    @property
    def count(self) -> int:
        return len(self.structure) + len(self.rows) + len(self.batches)


def make_checks(db: duckdb.DuckDBPyConnection, source: str, config: Source, references: Mapping[str, Path]) -> Checks:
    """Number the stated expectations, and those on the key, which always apply; the view `plain` has the columns.

    Raises: DataError when a column or a reference is missing; CaseError when an expectation is not valid.
    """
    columns = [name for (name, *_) in db.execute("DESCRIBE plain").fetchall()]
    checks = Checks()
    stated = [*_key_expectations(config), *(e for e in config.expectations if not _is_key_expectation(e, config))]
    for number, expectation in enumerate(stated):
        if expectation.expect in STRUCTURE:
            checks.structure.append(_as_stated(number, source, expectation))
            continue
        _require_columns(f"Source {source}", expectation, columns)
        if expectation.expect in UNIQUE and not {"row_condition", "ignore_row_if"} & set(expectation.arguments):
            checks.rows.append(_as_count(number, source, expectation))
        elif expectation.values_of and expectation.expect == "column_values_to_be_in_set":
            reference_path(source, expectation, references)
            checks.rows.append(_as_lookup(number, source, expectation))
        elif expectation.values_of:
            values = _distinct_values(db, expectation, reference_path(source, expectation, references))
            checks.rows.append(_as_stated(number, source, expectation, value_set=values))
        else:
            checks.rows.append(_as_stated(number, source, expectation))
    for number, expectation in enumerate(config.batch_expectations, start=len(stated)):
        _require_columns(f"The table of batches of {source}", expectation, BATCH_COLUMNS)
        checks.batches.append(_as_stated(number, source, expectation))
    return checks


def reference_path(source: str, expectation: Expectation, references: Mapping[str, Path]) -> Path:
    """The path of the table that `values_of` names."""
    table = str(expectation.values_of).partition(".")[0]
    if table not in references:
        raise DataError(
            f"Source {source} is checked against {table}, of which there is no data.",
            where=f"expectation {expectation.expect}, values_of {expectation.values_of}",
            found=", ".join(references) or "no other table",
            todo=f"Prepare {table} first, or correct values_of in case.yaml.",
        )
    return references[table]


def lookup_name(column: str, reference: str) -> str:
    """The validated view's column with looked-up values."""
    return f"{column} in {reference}"


def count_name(columns: Sequence[str]) -> str:
    """The validated view's column with the number of rows with the same values."""
    return f"rows with the same {', '.join(columns)}"


def build(source: str, expectation: Expectation, **changes: Any) -> GxExpectation:
    """The Great Expectations object of an expectation, with some arguments changed.

    Raises: CaseError when its type or arguments are wrong.
    """
    classes = _classes()
    kind = classes.get(full_type(expectation.expect))
    if kind is None:
        raise _invalid(source, expectation, unknown_type(expectation.expect, tuple(classes)))
    arguments = {**expectation.arguments, "severity": expectation.severity, "notes": expectation.why or None, **changes}
    try:
        return kind(**arguments)
    except ValueError as error:  # pydantic's ValidationError is one
        lines = {f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in getattr(error, "errors", list)()}
        raise _invalid(source, expectation, "; ".join(sorted(lines)) or str(error)) from error


def _invalid(source: str, expectation: Expectation, found: str) -> CaseError:
    return CaseError(
        "An expectation is not valid.",
        where=f"data.sources.{source}: {expectation.expect} {expectation.arguments}",
        found=found,
        todo="Correct it in case.yaml.",
    )


@cache
def _classes() -> dict[str, type[GxExpectation]]:
    from great_expectations import expectations
    from great_expectations.expectations.expectation import Expectation as Base

    kinds = [kind for kind in vars(expectations).values() if isinstance(kind, type) and issubclass(kind, Base)]
    schemas = expectation_schemas()
    return {kind.expectation_type: kind for kind in kinds if getattr(kind, "expectation_type", None) in schemas}


def _key_expectations(config: Source) -> Iterator[Expectation]:
    """What every key must meet even if the case does not state it; a stated reason is used."""
    stated = {e.arguments.get("column") for e in config.expectations if e.expect == "column_values_to_not_be_null"}
    for column in config.key:
        if column not in stated:
            yield _expectation("column_values_to_not_be_null", "part of the key", column=column)
    reasons = [e.why for e in config.expectations if _is_key_expectation(e, config) and e.why]
    why = (reasons or ["the key names one row"])[0]
    if len(config.key) == 1:
        yield _expectation("column_values_to_be_unique", why, column=config.key[0])
    else:
        yield _expectation("compound_columns_to_be_unique", why, column_list=list(config.key))


def _is_key_expectation(expectation: Expectation, config: Source) -> bool:
    """Whether the expectations on the key cover it."""
    return expectation.expect in UNIQUE and set(expectation.columns) == set(config.key)


def _expectation(kind: str, why: str, severity: str = "critical", **arguments: object) -> Expectation:
    return Expectation.model_validate({"expect": kind, "why": why, "severity": severity, **arguments})


def _as_stated(number: int, source: str, expectation: Expectation, **changes: object) -> Check:
    return Check(number, expectation, build(source, expectation, **changes))


def _as_count(number: int, source: str, expectation: Expectation) -> Check:
    """DuckDB counts rows with the same values once; Great Expectations would join the table with itself."""
    name, mostly = count_name(expectation.columns), expectation.arguments.get("mostly", 1)
    limits = {"column": name, "min_value": 1, "max_value": 1, "mostly": mostly}
    computed = build(
        source,
        _expectation("column_values_to_be_between", expectation.why, expectation.severity, **limits),
        description=f"No two rows have the same {', '.join(expectation.columns)}.",
    )
    return Check(number, expectation, computed, count_column=name)


def _as_lookup(number: int, source: str, expectation: Expectation) -> Check:
    """DuckDB looks the values up; Great Expectations would copy a set of thousands of them a thousand times."""
    (column,), reference = expectation.columns, str(expectation.values_of)
    others = {name: value for name, value in expectation.arguments.items() if name != "column"}
    pair = {"column_A": column, "column_B": lookup_name(column, reference)}
    equal = _expectation(
        "column_pair_values_to_be_equal", expectation.why, expectation.severity, **pair, **others,
        ignore_row_if="both_values_are_missing",
    )  # fmt: skip
    computed = build(source, equal, description=f"Values of {column} are among those of {reference}.")
    return Check(number, expectation, computed, is_lookup=True)


def _distinct_values(db: duckdb.DuckDBPyConnection, expectation: Expectation, path: Path) -> list[Any]:
    column = quote_identifier(str(expectation.values_of).partition(".")[2])
    rows = db.execute(f"SELECT DISTINCT {column} FROM {scan_parquet(path)} WHERE {column} IS NOT NULL ORDER BY ALL")
    return [value for (value,) in rows.fetchall()]


def _require_columns(table: str, expectation: Expectation, columns: Sequence[str]) -> None:
    if missing := [column for column in expectation.columns if column not in columns]:
        raise DataError(
            f"{table} lacks {', '.join(missing)}.",
            where=f"expectation {expectation.expect}",
            found=f"has: {', '.join(columns)}",
            todo="Deliver the column, or correct the name in case.yaml.",
        )
