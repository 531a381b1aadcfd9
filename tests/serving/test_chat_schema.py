"""Promise: a schema that is taken is enforced, quickly for everybody; another one is a 400 that names the keyword."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest

from tests.language.test_json_schema import ENFORCED, PATTERNS_TAKEN, REFUSED, array, closed
from tests.serving.small_chat import ask, body, chat_release, chat_service, engine_process


def pattern(text: str) -> dict[str, str]:
    return {"type": "string", "pattern": f"^{text}$"}


DEAREST = {
    "enum": {"enum": [f"value {i}" for i in range(300)]},
    "optional": {"type": "object", "properties": {f"a{i}": {"type": "null"} for i in range(95)}},
    "branches": {"anyOf": [{"type": "string", "maxLength": i + 1} for i in range(59)]},
    "arrays": array(array({"type": "string"}, 16), 16),
    "integers": closed({f"a{i}": {"type": "integer", "minimum": -(10**15), "maximum": 10**15} for i in range(95)}),
    "lengths": closed({f"a{i}": {"type": "string", "minLength": 2000, "maxLength": 2000} for i in range(95)}),
    "repetitions": pattern("[a-z]{0,8}[a-z]{0,256}"),
    "options": pattern("[a-z]?" * 8),
    "digits": pattern("[a-z]{1,100}" + "_[a-z]{1,100}" * 4),
    "groups": pattern("((a|b)(c|d)){128}"),
    "alternatives": pattern("(" + "|".join(["[a-z][a-z]"] * 9) + ")*"),
    "ambiguous": pattern("([a-z]|[a-z][a-z])*([a-z]|[a-z][a-z])*([a-z][a-z]+)*"),
    "nested": pattern("([a-z]+[a-z]?[a-z]?[a-z]?)+([a-z]+[a-z]?)*"),
    "classes": pattern("[" + "".join(chr(letter) for letter in range(0x100, 0x250)) + "]{256}"),
}


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[httpx.Client]:
    with chat_service(chat_release(tmp_path_factory.mktemp("schema"), slots=2)) as (_, client):
        ask(client, body())
        yield client


def with_schema(schema: Any, **more: Any) -> dict:
    form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    return body(response_format=form, temperature=1.0, **more)


PATTERNS = {pattern: {"type": "string", "pattern": pattern} for pattern in PATTERNS_TAKEN}


@pytest.mark.parametrize("name", [*ENFORCED, *PATTERNS])
def test_a_model_of_noise_keeps_to_the_schema(client, name):
    """Whatever it would say itself, a complete answer fits the schema."""
    schema, complete = (ENFORCED | PATTERNS)[name], 0
    for seed in range(6):
        response = ask(client, with_schema(schema, seed=seed, max_tokens=60))
        assert response.status_code == 200, response.text
        choice = response.json()["choices"][0]
        if choice["finish_reason"] == "stop":
            jsonschema.validate(json.loads(choice["message"]["content"]), schema)
            complete += 1
        if complete == 2:
            return
    assert complete or name in ("any", "map") or "+" in name


@pytest.mark.parametrize("name", DEAREST)
def test_the_dearest_schemas_keep_nobody_waiting(client, name):
    """At the bounds, a call takes the engine less than 2 s of processor time, in which the others wait."""
    engine = engine_process()
    before = engine.cpu_times().user
    assert ask(client, with_schema(DEAREST[name], max_tokens=20)).status_code == 200
    assert engine.cpu_times().user - before < 2


@pytest.mark.parametrize("name", REFUSED)
def test_another_schema_is_refused_before_the_engine_sees_it(client, name):
    """400 with the keyword's path, for response_format."""
    schema, path = REFUSED[name]
    begun = time.monotonic()
    response = ask(client, with_schema(schema))
    assert time.monotonic() - begun < 2
    assert response.status_code == 400
    error = response.json()["error"]
    if name != "deepest":  # no JSON that is read
        assert error["param"] == "response_format"
        assert error["message"].startswith(f"response_format: {path}")


@pytest.mark.parametrize(
    "form",
    [
        {"type": "grammar", "grammar": 'root ::= "a"'},
        {"type": "text", "grammar": 'root ::= "a"'},
        {"type": "json_object", "schema": {"type": "string", "minLength": 100_000}},
        {"type": "json_schema", "schema": {"type": "null"}},
        {"type": "json_schema", "json_schema": {"schema": {"type": "null"}, "grammar": "x"}},
        {"type": "json_schema"},
        {},
    ],
    ids=lambda form: json.dumps(form)[:50],
)
def test_other_ways_to_a_grammar_are_closed(client, form):
    response = ask(client, body(response_format=form))
    assert (response.status_code, response.json()["error"]["param"]) == (400, "response_format")
