"""Checks a case's expectations against the schemas of Great Expectations, without importing it."""

from __future__ import annotations

import difflib
import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

from tasks.core.errors import CaseError
from tasks.data.config import Expectation, Source

_NOT_OFFERED = {
    "expect_query_results_to_match_comparison",  # these two need a second database
    "expect_table_row_count_to_equal_other_table",
    "expect_column_quantile_values_to_be_between",  # its result, numpy's booleans, can't be stored as JSON
}
# set by this package, or without a meaning in a case
_HIDDEN = {
    *("id", "meta", "notes", "result_format", "catch_exceptions", "rendered_content"),
    *("severity", "windows", "batch_id", "metadata"),
}


def check_expectations(source: str, config: Source) -> None:
    """Check types and arguments; the import of Great Expectations would take seconds.

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
            todo="Correct them in case.yaml; docs.greatexpectations.io describes each type, with the prefix expect_.",
        )


def full_type(name: str) -> str:
    """A type's name in Great Expectations."""
    return name if name == "unexpected_rows_expectation" else f"expect_{name}"


def unknown_type(name: str, known: tuple[str, ...]) -> str:
    """The error message for a type that does not exist, with the nearest ones."""
    names = sorted(full.removeprefix("expect_") for full in known)
    near = difflib.get_close_matches(name.removeprefix("expect_"), names, n=3, cutoff=0.5)
    return (
        f"there is no such type; nearest: {', '.join(near)}" if near else f"no such type; there are: {', '.join(names)}"
    )


@cache
def expectation_schemas() -> dict[str, dict[str, Any]]:
    """JSON schema by full type, of the types that work on SQL: files inside the installed package."""
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


def _problems(expectation: Expectation) -> list[str]:
    schemas = expectation_schemas()
    schema = schemas.get(full_type(expectation.expect))
    if schema is None:
        return [unknown_type(expectation.expect, tuple(schemas))]
    allowed = sorted(set(schema["properties"]) - _HIDDEN)
    names = set(expectation.arguments) | ({"value_set"} if expectation.values_of else set())
    problems = [f"argument {name} is missing" for name in schema.get("required", []) if name not in names]
    for name in expectation.arguments:
        if name not in allowed:
            problems.append(f"unknown argument {name}; allowed: {', '.join(allowed)}")
        elif (kind := schema["properties"][name].get("type")) and not _is(kind, expectation.arguments[name]):
            problems.append(f"{name} must be {_ENGLISH.get(kind, kind)}, found {expectation.arguments[name]!r}")
    if expectation.values_of and "value_set" not in allowed:
        problems.append("values_of is for types that take a value_set, such as column_values_to_be_in_set")
    if expectation.values_of and "value_set" in expectation.arguments:
        problems.append("set value_set or values_of, not both")
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
