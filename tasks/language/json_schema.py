"""Checks JSON schemas of answers: the engine must be able to enforce them, and quickly.

llama.cpp compiles a schema into a grammar, and every other request waits meanwhile. It ignores keywords that it does
not know, so the answer may be anything; and some schemas of a few hundred bytes take it forever. So each part of a
schema must have one of the forms below, which were tested, and their total cost is limited.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tasks.language.json_pattern import check_pattern

MAX_BYTES = 32_768
MAX_DEPTH = 20
MAX_COST = 300  # values of enums, twice the properties, four times the branches; each use of a reference counts
MAX_LENGTH = 2000  # of a string
MAX_ITEMS = 256  # of an array; the product for nested arrays
MAX_INTEGER = 10**15
MAX_ONE_SIDED = 9  # a single bound beyond it is not enforced
DESCRIPTIVE = frozenset(
    ("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$schema", "$id", "$comment")
)
DEFINITIONS = ("$defs", "definitions")
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
KEYWORDS: Mapping[str, tuple[str, ...]] = {
    "string": ("minLength", "maxLength", "pattern", "format"),
    "integer": BOUNDS,
    "number": (),
    "boolean": (),
    "null": (),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "object": ("properties", "required", "additionalProperties"),
}
FORMATS = ("date", "time", "date-time", "uuid")
REFERENCE = re.compile(r"#/(\$defs|definitions)/([\w.-]{1,100})")
TYPES: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


class SchemaError(ValueError):
    """A schema that the engine can't enforce, or not quickly."""

    def __init__(self, path: Iterable[str], problem: str) -> None:
        self.path = ".".join(path) or "the schema"  # of the keyword
        super().__init__(f"{self.path} {problem}")


def check_schema(schema: Any) -> None:
    """Check that the engine enforces a schema, and does so quickly.

    Raises: SchemaError with the path of the invalid keyword and what is allowed there.
    """
    if not isinstance(schema, dict):
        raise SchemaError((), "must be an object")
    try:
        size = len(json.dumps(schema))
    except (RecursionError, ValueError, TypeError):
        raise SchemaError((), f"is nested deeper than {MAX_DEPTH} levels, or is not JSON") from None
    if size > MAX_BYTES:
        raise SchemaError((), f"has {size:,} bytes; at most {MAX_BYTES:,} are allowed")
    cost = _Checker(schema).cost(schema, (), 1)
    if cost > MAX_COST:
        what = "values of enums, twice the properties, four times the branches"
        raise SchemaError((), f"costs {cost:,} ({what}); at most {MAX_COST} are allowed")


class _Checker:
    def __init__(self, root: dict[str, Any]) -> None:
        self._definitions = {name: root.get(name, {}) for name in DEFINITIONS}
        for name, value in self._definitions.items():
            if not isinstance(value, dict):
                raise SchemaError((name,), "must be an object of schemas")
        self._open: list[str] = []  # references being resolved
        self._costs: dict[tuple[str, int], int] = {}

    def cost(self, schema: Any, path: tuple[str, ...], items: int) -> int:
        """The cost of a part's grammar; `items` is how often it may occur in the arrays around it."""
        if len(path) > 2 * MAX_DEPTH or len(self._open) > MAX_DEPTH:
            raise SchemaError(path[:6], f"is nested deeper than {MAX_DEPTH} levels")
        if not isinstance(schema, dict):
            raise SchemaError(path, "must be an object; true and false are not allowed as schemas")
        at_root = DEFINITIONS if not path else ()
        keywords = [name for name in schema if name not in DESCRIPTIVE and name not in at_root]
        for form, check in (("$ref", self._reference), ("anyOf", self._branches), ("oneOf", self._exclusive)):
            if form in schema:
                self._alone(form, keywords, path)
                return check(schema[form], (*path, form), items)
        for form in ("enum", "const"):
            if form in schema:
                self._alone(form, [name for name in keywords if name != "type"], path)
                return self._values(schema, form, path)
        types = self._types(schema, keywords, path)
        taken = {name for each in types for name in KEYWORDS[each]} | {"type"}
        for name in keywords:
            if name not in taken:
                kind = f"of type {' or '.join(types)}" if types else "without a type"
                allowed = ", ".join(sorted(taken - {"type"})) or "nothing else"
                raise SchemaError((*path, name), f"can't be enforced in a schema {kind}; allowed there: {allowed}")
        _check_string(schema, path)
        _check_integer(schema, path)
        return 1 + self._array(schema, path, items) + self._object(schema, path, items)

    def _alone(self, form: str, keywords: list[str], path: tuple[str, ...]) -> None:
        for name in keywords:
            if name != form:
                raise SchemaError((*path, name), f"can't be enforced beside {form}")

    def _reference(self, name: Any, path: tuple[str, ...], items: int) -> int:
        found = REFERENCE.fullmatch(name) if isinstance(name, str) else None
        if not found or found[2] not in self._definitions[found[1]]:
            raise SchemaError(path, "must name one of the root's $defs, such as #/$defs/address")
        if name in self._open:
            raise SchemaError(path, f"refers to itself through {' and '.join(self._open)}; recursion is not allowed")
        if (name, items) not in self._costs:
            self._open.append(name)
            self._costs[name, items] = self.cost(self._definitions[found[1]][found[2]], (found[1], found[2]), items)
            self._open.pop()
        return self._costs[name, items]

    def _branches(self, branches: Any, path: tuple[str, ...], items: int) -> int:
        if not isinstance(branches, list) or not branches:
            raise SchemaError(path, "must be a list of schemas")
        return sum(4 + self.cost(each, (*path, str(i)), items) for i, each in enumerate(branches))

    def _exclusive(self, branches: Any, path: tuple[str, ...], items: int) -> int:
        """Branches that exclude each other: the engine only checks that an answer matches any of them."""
        cost = self._branches(branches, path, items)
        for i, first in enumerate(branches):
            for j, second in enumerate(branches[:i]):
                if not self._disjoint(first, second):
                    text = f"has branches that an answer may match both, {j} and {i}: use anyOf, or give one a required"
                    raise SchemaError(path, f"{text} property with a const that the other lacks")
        return cost

    def _disjoint(self, *branches: dict[str, Any]) -> bool:
        first, second = (self._followed(branch) for branch in branches)
        if (one := _constants(first)) and (two := _constants(second)):
            return one.isdisjoint(two)
        for name in {*first.get("required", ()), *second.get("required", ())}:  # every answer that matches both has it
            values = [each.get("properties", {}).get(name) for each in (first, second)]
            if any(
                value is None and each.get("additionalProperties") is False
                for value, each in zip(values, (first, second), strict=True)
            ):
                return True
            one, two = (_constants(self._followed(value or {})) for value in values)
            if one and two and one.isdisjoint(two):
                return True
        types = [set(self._types(each, list(each), ())) for each in (first, second)]
        disjoint = all(types) and types[0].isdisjoint(types[1])
        return disjoint and not {"integer", "number"} <= types[0] | types[1]

    def _followed(self, schema: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in schema:
            _, kind, name = schema["$ref"].split("/")
            schema = self._definitions[kind][name]
        return schema

    def _values(self, schema: dict[str, Any], form: str, path: tuple[str, ...]) -> int:
        values = schema[form] if form == "enum" else [schema[form]]
        if not isinstance(values, list) or not values:
            raise SchemaError((*path, form), "must be a list of values")
        types = self._types(schema, [], path) if "type" in schema else tuple(TYPES)
        for value in values:
            if not any(TYPES[each](value) for each in types):
                raise SchemaError((*path, form), f"has a value that is not {' or '.join(types)}: {str(value)[:60]}")
        return len(values)

    def _types(self, schema: dict[str, Any], keywords: list[str], path: tuple[str, ...]) -> tuple[str, ...]:
        """The declared types; without any, the type that the keywords belong to."""
        if "type" not in schema:
            return next(
                ((kind,) for kind in ("object", "array", "string") if any(name in KEYWORDS[kind] for name in keywords)),
                (),
            )
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not types or any(not isinstance(each, str) or each not in TYPES for each in types):
            raise SchemaError((*path, "type"), f"must be one or several of {', '.join(TYPES)}")
        return tuple(types)

    def _array(self, schema: dict[str, Any], path: tuple[str, ...], items: int) -> int:
        least, most = _limits(schema, ("minItems", "maxItems"), MAX_ITEMS, path)
        if "prefixItems" in schema:
            for name in ("items", "minItems", "maxItems"):
                if name in schema:
                    raise SchemaError((*path, name), "can't be enforced beside prefixItems")
            listed = schema["prefixItems"]
            if not isinstance(listed, list) or not listed:
                raise SchemaError((*path, "prefixItems"), "must be a list of schemas")
            return sum(self.cost(each, (*path, "prefixItems", str(i)), items) for i, each in enumerate(listed))
        if "items" not in schema:
            for name in ("minItems", "maxItems"):
                if name in schema:
                    raise SchemaError((*path, name), "can't be enforced without items")
            return 0
        within = items * max(least, most if "maxItems" in schema else 1, 1)
        if within > MAX_ITEMS:
            raise SchemaError((*path, "items"), f"are up to {within:,} in total; at most {MAX_ITEMS} are allowed")
        return self.cost(schema["items"], (*path, "items"), within)

    def _object(self, schema: dict[str, Any], path: tuple[str, ...], items: int) -> int:
        properties = schema.get("properties", {})
        if not isinstance(properties, dict):
            raise SchemaError((*path, "properties"), "must be an object of schemas")
        required = schema.get("required", [])
        if not isinstance(required, list) or any(name not in properties for name in required):
            raise SchemaError((*path, "required"), "must be a list of names of properties")
        cost = sum(2 + self.cost(each, (*path, "properties", name), items) for name, each in properties.items())
        others = schema.get("additionalProperties", False)
        return cost if isinstance(others, bool) else cost + self.cost(others, (*path, "additionalProperties"), items)


def _constants(schema: dict[str, Any]) -> set[str]:
    """The values that a schema allows, as JSON; none if it lists no values."""
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return {json.dumps(value, sort_keys=True) for value in values}


def _check_string(schema: dict[str, Any], path: tuple[str, ...]) -> None:
    _limits(schema, ("minLength", "maxLength"), MAX_LENGTH, path)
    chosen = [name for name in ("pattern", "format", "minLength", "maxLength") if name in schema]
    if len(chosen) > 1 and chosen[0] in ("pattern", "format"):
        raise SchemaError((*path, chosen[1]), f"can't be enforced beside {chosen[0]}")
    if "format" in schema and schema["format"] not in FORMATS:
        raise SchemaError((*path, "format"), f"can't be enforced; allowed: {', '.join(FORMATS)}")
    if "pattern" in schema:
        if not isinstance(schema["pattern"], str):
            raise SchemaError((*path, "pattern"), "must be a text")
        try:
            check_pattern(schema["pattern"])
        except ValueError as error:
            raise SchemaError((*path, "pattern"), str(error)) from error


def _check_integer(schema: dict[str, Any], path: tuple[str, ...]) -> None:
    for name in BOUNDS:
        value = schema.get(name, 0)
        if not TYPES["number"](value) or abs(value) > MAX_INTEGER or value != int(value):
            raise SchemaError((*path, name), f"must be a whole number of at most {MAX_INTEGER:,}")
    for pair in (BOUNDS[::2], BOUNDS[1::2]):
        if all(name in schema for name in pair):
            raise SchemaError((*path, pair[1]), f"can't be enforced beside {pair[0]}")
    low = schema.get("minimum", schema.get("exclusiveMinimum", -MAX_INTEGER) + 1)
    high = schema.get("maximum", schema.get("exclusiveMaximum", MAX_INTEGER) - 1)
    named = [name for name in BOUNDS if name in schema]
    if low > high:
        raise SchemaError((*path, named[-1]), f"allows no number: it is below {named[0]}")
    if len(named) == 1 and (low > MAX_ONE_SIDED or high < -MAX_ONE_SIDED):
        raise SchemaError((*path, named[0]), "is enforced beyond 9 only together with the opposite bound: set both")


def _limits(schema: dict[str, Any], names: tuple[str, str], most: int, path: tuple[str, ...]) -> tuple[int, int]:
    """The lower and the upper limit, which default to 0 and `most`."""
    low, high = schema.get(names[0], 0), schema.get(names[1], most)
    for name, value in zip(names, (low, high), strict=True):
        if not TYPES["integer"](value) or not 0 <= value <= most:
            raise SchemaError((*path, name), f"must be a whole number from 0 to {most:,}")
    if low > high:
        raise SchemaError((*path, names[1]), f"is below {names[0]}")
    return low, high
