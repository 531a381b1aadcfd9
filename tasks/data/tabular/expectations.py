"""A case's expectations: checked against what Great Expectations offers, and turned into its objects."""

from __future__ import annotations

import difflib
import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import CaseError
from tasks.data.config import Expectation, Source

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation as GxExpectation

COLUMN_ARGUMENTS = ("column", "column_A", "column_B", "column_list")
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
_NOT_OFFERED = {
    "expect_query_results_to_match_comparison",  # these two ask a second database
    "expect_table_row_count_to_equal_other_table",
    "expect_column_quantile_values_to_be_between",  # its result, numpy's booleans, can't be stored as JSON
}
# ours to set, or without a meaning in a case
_HIDDEN = {
    *("id", "meta", "notes", "result_format", "catch_exceptions", "rendered_content"),
    *("severity", "windows", "batch_id", "metadata"),
}


def check_expectations(source: str, config: Source) -> None:
    """Check types and arguments against the schemas shipped with Great Expectations, without importing it.

    Raises: CaseError naming every expectation that does not exist or has wrong arguments.
    """
    problems = []
    for field in ("expectations", "batch_expectations"):
        for at, expectation in enumerate(getattr(config, field)):
            problems += [f"{field}[{at}] {expectation.expect}: {text}" for text in _problems(expectation)]
    if problems:
        raise CaseError(
            f"The expectations of source {source} are not valid.",
            where=f"data.sources.{source}",
            found="; ".join(problems),
            todo="Correct them in case.yaml; docs.greatexpectations.io describes each type, there with expect_ before.",
        )


def columns_of(expectation: Expectation) -> tuple[str, ...]:
    """The columns that its arguments name."""
    named: list[str] = []
    for name in COLUMN_ARGUMENTS:
        value = expectation.arguments.get(name, [])
        named += value if isinstance(value, (list, tuple)) else [str(value)]
    return tuple(named)


def build(source: str, expectation: Expectation, **changes: Any) -> GxExpectation:
    """The Great Expectations object of an expectation, with some arguments changed.

    Raises: CaseError when its type or arguments are wrong.
    """
    known = _classes()
    kind = known.get(_full(expectation.expect))
    if kind is None:
        raise _wrong(source, expectation, _unknown(expectation.expect, tuple(known)))
    arguments = {**expectation.arguments, "severity": expectation.severity, "notes": expectation.why or None, **changes}
    try:
        return kind(**arguments)
    except ValueError as error:  # pydantic's ValidationError is one
        lines = {f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in getattr(error, "errors", list)()}
        raise _wrong(source, expectation, "; ".join(sorted(lines)) or str(error)) from error


def is_row_level(expectation: GxExpectation) -> bool:
    """Whether it judges each row by itself, so that bad rows can be told from good ones."""
    from great_expectations.expectations import expectation as kinds

    each_row = (kinds.ColumnMapExpectation, kinds.ColumnPairMapExpectation, kinds.MulticolumnMapExpectation)
    return isinstance(expectation, each_row)


def _full(name: str) -> str:
    return name if name == "unexpected_rows_expectation" else f"expect_{name}"


def _wrong(source: str, expectation: Expectation, found: str) -> CaseError:
    return CaseError(
        "An expectation is not valid.",
        where=f"data.sources.{source}: {expectation.expect} {expectation.arguments}",
        found=found,
        todo="Correct it in case.yaml.",
    )


def _problems(expectation: Expectation) -> list[str]:
    schemas = _schemas()
    schema = schemas.get(_full(expectation.expect))
    if schema is None:
        return [_unknown(expectation.expect, tuple(schemas))]
    allowed = sorted(set(schema["properties"]) - _HIDDEN)
    given = set(expectation.arguments) | ({"value_set"} if expectation.values_of else set())
    problems = [f"argument {name} is missing" for name in schema.get("required", []) if name not in given]
    for name in expectation.arguments:
        if name not in allowed:
            problems.append(f"unknown argument {name}; allowed: {', '.join(allowed)}")
        elif (kind := schema["properties"][name].get("type")) and not _is(kind, expectation.arguments[name]):
            problems.append(f"{name} must be {_ENGLISH.get(kind, kind)}, found {expectation.arguments[name]!r}")
    if expectation.values_of and "value_set" not in allowed:
        problems.append("values_of is for types that take a value_set, such as column_values_to_be_in_set")
    if expectation.values_of and "value_set" in expectation.arguments:
        problems.append("give value_set or values_of, not both")
    return problems


_ENGLISH = {"string": "text", "array": "a list", "boolean": "true or false", "object": "a mapping"}
_PYTHON: dict[str, Any] = {
    "string": str,
    "array": (list, tuple),
    "boolean": bool,
    "object": dict,
    "number": (int, float),
}


def _is(kind: str, value: object) -> bool:
    return isinstance(value, _PYTHON.get(kind, object))


def _unknown(name: str, known: tuple[str, ...]) -> str:
    names = sorted(full.removeprefix("expect_") for full in known)
    near = difflib.get_close_matches(name.removeprefix("expect_"), names, n=3, cutoff=0.5)
    return (
        f"there is no such type; nearest: {', '.join(near)}" if near else f"no such type; there are: {', '.join(names)}"
    )


@cache
def _schemas() -> dict[str, dict]:
    """JSON schema by full type, of the types that work on SQL."""
    package = importlib.util.find_spec("great_expectations")
    if package is None or not package.submodule_search_locations:
        raise CaseError("The package great_expectations is not installed.", todo="Run make setup.")
    folder = Path(next(iter(package.submodule_search_locations))) / "expectations" / "core" / "schemas"
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))["expectations"]
    return {
        name: json.loads((folder / entry["schema_file"]).read_text(encoding="utf-8"))
        for name, entry in index.items()
        if "PostgreSQL" in entry["supported_data_sources"] and name not in _NOT_OFFERED
    }


@cache
def _classes() -> dict[str, type[GxExpectation]]:
    from great_expectations import expectations
    from great_expectations.expectations.expectation import Expectation as Base

    kinds = [kind for kind in vars(expectations).values() if isinstance(kind, type) and issubclass(kind, Base)]
    return {kind.expectation_type: kind for kind in kinds if getattr(kind, "expectation_type", None) in _schemas()}
