"""Complete rows are read by column, and everything else is left to the request's type, with the same meaning."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.serving.fast_rows import row_reader
from services.serving.schema import make_schema
from services.serving.tabular_release import ids_of, read_values

COLUMNS = [
    {"name": "city", "kind": "text", "nullable": True, "max_length": 8},
    {"name": "code", "kind": "text", "nullable": False},
    {"name": "size", "kind": "number", "nullable": False},
    {"name": "open", "kind": "number", "nullable": True, "boolean": True},
]
SEALED: dict[str, Any] = {
    "columns": [{**column, "origin": "request", "entities": []} for column in COLUMNS],
    "target": {"column": "y", "task": "regression"},
    "entities": {},
    "missing": ["", "NA"],
}
ROW = {"city": "Bern", "code": "x1", "size": 2, "open": True}
GOLDEN = [{"example_id": "a", "features": ROW, "prediction": 1.0}]
SCHEMA = make_schema({"digest": "d", "sealed": SEALED}, GOLDEN)
READER = row_reader(SEALED)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=10),
    st.sampled_from(["NA", "", " ", " Bern", "Bern\n", "\x1c", "12", "\u2003a"]),
    st.lists(st.integers(), max_size=1),
)


def read(*rows: Any, **others: Any) -> Any:
    assert READER
    return READER.read(json.dumps({"rows": list(rows), **others}).encode())


def test_complete_rows_are_read_by_column() -> None:
    rows = read({**ROW, "example_id": "a"}, {**ROW, "size": 2.5, "city": None, "open": None})
    assert rows.values == {"city": ["Bern", None], "code": ["x1"] * 2, "size": [2, 2.5], "open": [True, None]}
    assert rows.ids == ["a", None]


@pytest.mark.parametrize(
    "row",
    [
        {"city": "Bern"},
        {**ROW, "colour": "red"},
        {**ROW, "city": " Bern"},
        {**ROW, "city": ""},
        {**ROW, "city": "NA"},
        {**ROW, "city": "Montevideo"},
        {**ROW, "code": None},
        {**ROW, "size": "2"},
        {**ROW, "size": True},
        {**ROW, "example_id": 7},
        "a row",
        None,
    ],
    ids=str,
)
def test_all_other_rows_are_left_to_the_type(row: Any) -> None:
    assert read(ROW, row) is None


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"rows": []}', b'{"rows": 1}', b'{"rows": {"a": 1}}', b"\xff"])
def test_other_bodies_are_left_to_the_type(body: bytes) -> None:
    assert READER
    assert READER.read(body) is None
    assert read(ROW, more=1) is None


def test_a_release_with_a_feature_named_example_id_has_no_reader() -> None:
    column = {**SEALED["columns"][0], "name": "example_id"}
    assert row_reader({**SEALED, "columns": [column]}) is None


@given(st.lists(st.fixed_dictionaries({**dict.fromkeys(ROW, VALUES), "example_id": VALUES}), min_size=1, max_size=3))
def test_what_is_read_is_what_the_type_reads(rows: list[dict[str, Any]]) -> None:
    """For values of all kinds: never a row that the type would refuse, never another value."""
    read_rows = read(*rows)
    try:
        validated = SCHEMA.request.model_validate_json(json.dumps({"rows": rows})).rows  # type: ignore[attr-defined]
    except ValidationError:
        assert read_rows is None
        return
    if read_rows is not None:
        assert read_rows.values == read_values(SCHEMA, validated, None)
        assert read_rows.ids == ids_of(SCHEMA, validated)
