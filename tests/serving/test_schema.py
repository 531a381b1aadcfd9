"""What a row may hold follows the release's training data, which the manifest describes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from services.serving.schema import Schema, format_prediction, make_schema
from services.serving.tabular_release import error_body
from tasks.train.classes import matches_label


def schema_of(*columns: dict[str, Any], **sealed: Any) -> Schema:
    request = {"origin": "request", "entities": [], "nullable": False}
    target = {"column": "spend", "task": "regression"}
    manifest = {
        "digest": "d" * 64,
        "sealed": {"target": target, "entities": {}, "columns": [request | column for column in columns], **sealed},
    }
    example = {"example_id": "a", "features": {column["name"]: None for column in columns}, "prediction": 1.0}
    return make_schema(manifest, [example])


def value(schema: Schema, sent: Any) -> Any:
    return schema.request.model_validate({"rows": [{"x": sent}]}).rows[0].f0  # type: ignore[attr-defined]


def problem(schema: Schema, sent: Any, name: str = "x") -> str:
    with pytest.raises(ValidationError) as raised:
        schema.request.model_validate({"rows": [{name: sent}]})
    body = error_body(raised.value, schema)
    assert body["detail"][0]["loc"] == ("rows", 0, name)
    return body["detail"][0]["msg"]


NUMBER, TEXT = {"name": "x", "kind": "number"}, {"name": "x", "kind": "text"}


@pytest.mark.parametrize(("sent", "read"), [(True, 1.0), (False, 0.0), (1, 1.0), (0.0, 0.0)])
def test_a_boolean_feature_takes_both_forms(sent: Any, read: float) -> None:
    """Kind of row 19: true and 1 are the same; a number's column takes no true."""
    assert value(schema_of({**NUMBER, "boolean": True}), sent) == read
    if isinstance(sent, bool):
        assert problem(schema_of({**NUMBER, "boolean": False}), sent) == "Input should be a valid number"


@pytest.mark.parametrize("column", [NUMBER, TEXT])
@pytest.mark.parametrize("sent", [None, "", "  ", "?"])
def test_a_gap_is_missing_where_it_may_be(column: dict[str, Any], sent: Any) -> None:
    """Kind of row 40: null, an empty field, and the source's own word for a missing value."""
    assert value(schema_of({**column, "nullable": True}, missing=["", "?"]), sent) is None
    if sent != "?" or column is NUMBER:
        assert problem(schema_of(column, missing=["", "?"]), sent).startswith(("Input should be", "String should have"))


def test_the_reason_is_that_of_the_type() -> None:
    """A union's other members, and words for missing values, explain nothing."""
    schema = schema_of({**NUMBER, "nullable": True, "boolean": True}, missing=["?"])
    assert problem(schema, "far") == "Input should be a valid number"
    assert problem(schema_of({**TEXT, "nullable": True}, missing=["?"]), 7) == "Input should be a valid string"


def test_the_limit_of_a_text_follows_the_data() -> None:
    """Kind of row 9: texts of 1,300 characters in training are taken from a client, too."""
    assert len(value(schema_of({**TEXT, "max_length": 2600}), "a" * 1300)) == 1300
    assert problem(schema_of({**TEXT, "max_length": 2600}), "a" * 2601) == "String should have at most 2600 characters"
    assert "1000 characters" in problem(schema_of(TEXT), "a" * 1001)


def test_blanks_around_a_text_are_trimmed() -> None:
    """Kind of row 39: as in training."""
    assert value(schema_of(TEXT), " State-gov\t") == "State-gov"


def test_an_unknown_column_gets_the_nearest_name() -> None:
    income = {"name": "income", "kind": "number", "nullable": True}
    schema = schema_of({**TEXT, "nullable": True}, income, ignored=["customer"])
    assert "did you mean income?" in problem(schema, 1, "incom")
    assert "did you mean customer?" in problem(schema, 1, "costumer")
    assert "no such column" in problem(schema, 1, "qqq")


def test_a_boolean_target_is_answered_as_true_or_false() -> None:
    """Kind of row 27: the answer speaks the file's language; 0 and 1 stay numbers."""
    answers = []
    for boolean in (True, False):
        target = {"column": "late", "task": "classification", **({"boolean": True} if boolean else {})}
        schema = schema_of(NUMBER, target=target)
        answer = format_prediction("a", 0.7, schema.classes)
        schema.answer.model_validate({"release": "d", "predictions": [answer]}, strict=True)
        assert matches_label(answer, 0.7)
        answers.append(json.dumps([answer["prediction"], format_prediction("a", 0.2, schema.classes)["prediction"]]))
    assert answers == ["[true, false]", "[1, 0]"]
