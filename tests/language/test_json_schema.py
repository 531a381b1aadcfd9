"""Promise: a schema that the engine can't enforce, or that would keep it from everybody else, is refused by name."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from tasks.core.settings import ROOT
from tasks.data.config import Answer
from tasks.language.json_pattern import check_pattern
from tasks.language.json_schema import SchemaError, check_schema


def closed(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An object of these properties, all required."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(depth):
        schema = closed({"a": schema})
    return schema


def doubled(depth: int) -> dict[str, Any]:
    """References that each name the next one twice."""
    definitions: dict[str, Any] = {
        f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]} for i in range(depth)
    }
    return {"$ref": "#/$defs/d0", "$defs": definitions | {f"d{depth}": {"type": "null"}}}


def array(items: Any, most: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "maxItems": most}


ENFORCED: dict[str, dict[str, Any]] = {
    "any": {},
    "descriptive": {"type": "null", "title": "t", "description": "d", "default": 1, "examples": [2], "$schema": "a:b"},
    "object": closed({"a": {"type": "string", "maxLength": 4}, "b": {"type": ["integer", "null"]}}),
    "odd names": closed({'a"b': {"type": "null"}, "é\n": {"type": "null"}, "": {"type": "null"}}),
    "optional": {"type": "object", "properties": {"a": {"type": "null"}, "b": {"const": 1}}},
    "map": {"type": "object", "additionalProperties": {"type": "null"}},
    "enum": {"enum": ["a", 'q"', None, 1.5, [True]]},
    "const": {"const": {"a": "x\\y\n"}},
    "array": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
    "tuple": {"type": "array", "prefixItems": [{"type": "boolean"}, {"type": "null"}]},
    "integer": {"type": "integer", "minimum": -12, "maximum": 345},
    "at least": {"type": "integer", "minimum": 7},
    "above": {"type": "integer", "exclusiveMinimum": 2},
    "date": {"type": "string", "format": "date"},
    "uuid": {"type": "string", "format": "uuid"},
    "length": {"type": "string", "minLength": 2, "maxLength": 5},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}(-[0-9]{1,3})?$"},
    "reference": {"$ref": "#/$defs/a", "$defs": {"a": {"enum": ["x", "y"]}}},
    "branches": {"anyOf": [{"type": "string", "maxLength": 3}, {"type": "null"}]},
    "one tagged": {
        "oneOf": [
            closed({"do": {"const": "a"}}),
            {"type": "object", "properties": {"do": {"const": "b"}}, "additionalProperties": False},
        ]
    },
    "tagged": {"oneOf": [closed({"do": {"const": "a"}}), closed({"do": {"const": "b"}, "n": {"type": "null"}})]},
}
REFUSED: dict[str, tuple[Any, str]] = {
    "no object": (True, "the schema"),
    "list": ([], "the schema"),
    "unknown": ({"type": "string", "contentEncoding": "base64"}, "contentEncoding"),
    "not": ({"not": {"type": "string"}}, "not"),
    "if": ({"type": "object", "if": {}, "then": {}}, "if"),
    "all of": ({"allOf": [{"type": "null"}]}, "allOf"),
    "unique": ({"type": "array", "items": {}, "uniqueItems": True}, "uniqueItems"),
    "contains": ({"type": "array", "contains": {}}, "contains"),
    "names": ({"type": "object", "propertyNames": {}}, "propertyNames"),
    "patterns": ({"type": "object", "patternProperties": {"^a": {}}}, "patternProperties"),
    "count": ({"type": "object", "minProperties": 1}, "minProperties"),
    "dependent": ({"type": "object", "dependentRequired": {}}, "dependentRequired"),
    "multiple": ({"type": "integer", "multipleOf": 3}, "multipleOf"),
    "number": ({"type": "number", "minimum": 0}, "minimum"),
    "untyped": ({"minimum": 0}, "minimum"),
    "one side": ({"type": "integer", "minimum": 100}, "minimum"),
    "huge": ({"type": "integer", "minimum": 10**18}, "minimum"),
    "fraction": ({"type": "integer", "minimum": 0.5}, "minimum"),
    "infinite": ({"type": "integer", "minimum": 1e300}, "minimum"),
    "crossed": ({"type": "integer", "minimum": 5, "maximum": 3}, "maximum"),
    "email": ({"type": "string", "format": "email"}, "format"),
    "two": ({"type": "string", "pattern": "^a$", "maxLength": 3}, "maxLength"),
    "long": ({"type": "string", "minLength": 100_000}, "minLength"),
    "short": ({"type": "string", "minLength": 3, "maxLength": 2}, "maxLength"),
    "items": (array({"type": "null"}, 100_000), "maxItems"),
    "items in items": (array(array({"type": "null"}, 100), 100), "items.items"),
    "bare items": ({"type": "array", "minItems": 1}, "minItems"),
    "old tuple": ({"type": "array", "items": [{"type": "null"}]}, "items"),
    "rest": ({"type": "array", "prefixItems": [{"type": "null"}], "items": {}}, "items"),
    "type": ({"type": "objekt"}, "type"),
    "enum type": ({"type": "string", "enum": [1]}, "enum"),
    "empty enum": ({"enum": []}, "enum"),
    "enum and": ({"enum": ["a"], "maxLength": 1}, "maxLength"),
    "required": ({"type": "object", "required": ["a"]}, "required"),
    "deep path": (
        closed({"a": closed({"b": {"type": "string", "pattern": "x"}})}),
        "properties.a.properties.b.pattern",
    ),
    "branch and": ({"anyOf": [{"type": "null"}], "type": "null"}, "type"),
    "overlap": ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
    "untagged": ({"oneOf": [closed({"a": {}}), {"type": "object", "properties": {"a": {}}}]}, "oneOf"),
    "remote": ({"$ref": "https://example.org/schema"}, "$ref"),
    "nowhere": ({"$ref": "#/$defs/a"}, "$ref"),
    "self": ({"$ref": "#"}, "$ref"),
    "loop": ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "$defs.b.$ref"),
    "tree": ({"$ref": "#/$defs/a", "$defs": {"a": array({"$ref": "#/$defs/a"}, 2)}}, "$defs.a.items.$ref"),
    "depth": (nested(60), "properties.a.properties.a.properties.a"),
    "deepest": (nested(300), "properties.a.properties.a.properties.a"),
    "values": ({"enum": list(range(400))}, "the schema"),
    "properties": (closed({f"a{i}": {"type": "null"} for i in range(150)}), "the schema"),
    "branches": ({"anyOf": [{"type": "null"}] * 80}, "the schema"),
    "doubling": (doubled(18), "the schema"),
    "bytes": ({"enum": ["x" * 50_000]}, "the schema"),
}
PATTERNS_REFUSED = [
    r"[A-Z]{3}",
    r"^a",
    r"a$",
    r"^(?=a)b$",
    r"^(?!a)b$",
    r"^(?<=a)b$",
    r"^(?i)a$",
    r"^(?P<n>a)$",
    r"^(a)\1$",
    r"^\d$",
    r"^\w$",
    r"^\s$",
    r"^\q$",
    r"^\bb$",
    r"^\p{L}$",
    r"^\n$",
    r"^\/$",
    r"^\\$",
    r"^a\$",
    r'^"$',
    r'^["]$',
    r"^[!-~]$",
    r"^[^a]$",
    r"^.$",
    r"^a.c$",
    r"^[z-a]$",
    r"^[]$",
    r"^[a$",
    r"^(a$",
    r"^a)$",
    r"^a|b$",
    r"^(a|)b$",
    r"^()$",
    r"^a{3,2}$",
    r"^a{0}$",
    r"^a{1,99999}$",
    r"^[A-Z]{999}$",
    r"^a{,3}$",
    r"^a{b}$",
    r"^{$",
    r"^a**$",
    r"^a+?$",
    r"^(a*)*$",
    r"^(a?){50}$",
    r"*",
    r"^^a$",
    r"^(a{0,50}){50}$",
    r"^(aa|a){50}$",
    r"^(([a-z]{1,5}-){1,5}){1,5}$",
    r"^(a{50}){50}$",
    r"^a$b$",
    r"^[a-z]{0,32}[a-z]{0,32}$",
    r"^[a-z]{1,30}@?[a-z]{1,30}$",
    r"^a?a?a?a?a?a?a?a?a?a?a?a?$",
    r"^([a-c]d|[b-e]d|[c-f]d|ad|bd|cd|dd|ed|fd|[a-z]d|[d-z]d)*$",
    r"^([a-z]{1,12})+$",
    r"^((a+b?)+c?)+$",
    r"^((ab){2}c){2}$",
]
PATTERNS_TAKEN = [
    r"^$",
    r"^a$",
    r"^é$",
    r"^[A-Z]{3}$",
    r"^[a-z]+(-[a-z]+)*$",
    r"^[0-9]{4}-[0-9]{2}$",
    r"^(a|bc)?$",
    r"^\.\-\$\(\)\[\]$",
    r"^[a\-z\]]$",
    r"^[a-]$",
    r"^(?:ab){2,3}$",
    r"^[a-z]{1,30}@[a-z]{1,30}\.[a-z]{2,3}$",
    r"^[A-Z0-9]{2}_?[0-9]{1,4}$",
    r"^a{2,}$",
    r"^[a-z]{0,250}$",
    r"^(\+[0-9]{1,3} )?[0-9]{3,12}(-[0-9]{1,4})?$",
    r"^(north|south|east|west)(_(low|high))?$",
]


@pytest.mark.parametrize("name", ENFORCED)
def test_what_is_enforced_is_taken(name):
    check_schema(ENFORCED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_enforced_or_costs_too_much_is_refused(name):
    """The error begins with the path of the keyword; a case with such a schema is refused in the same words."""
    schema, path = REFUSED[name]
    begun = time.perf_counter()
    with pytest.raises(SchemaError) as caught:
        check_schema(schema)
    assert time.perf_counter() - begun < 1
    assert caught.value.path.startswith(path)
    assert str(caught.value).startswith(path)
    if isinstance(schema, dict):
        with pytest.raises(ValueError, match=re.escape(str(caught.value)[:60])):
            Answer(json_schema=schema)


@pytest.mark.parametrize("pattern", PATTERNS_REFUSED)
def test_patterns_that_the_engine_gets_wrong_are_refused(pattern):
    with pytest.raises(ValueError, match=r"^[a-z]"):
        check_pattern(pattern)


@pytest.mark.parametrize("pattern", PATTERNS_TAKEN)
def test_ordinary_patterns_are_taken(pattern):
    check_pattern(pattern)
    re.compile(pattern)


def test_the_schemas_of_our_cases_are_taken():
    """Those that come with the project, and the answers that `new` and the docs begin with."""
    check_schema(json.loads((ROOT / "configs" / "assistant" / "schema.json").read_text()))
