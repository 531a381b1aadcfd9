"""Promise: what OpenAI's clients send is taken where it changes nothing, and refused by its name where it would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tasks.language.chat_request import ChatCompletionRequest
from tests.serving.small_chat import FREE, ask, body, chat_release, chat_service

TEXT_PARTS = [{"type": "text", "text": "Whe"}, {"type": "text", "text": "re?"}]
IMAGE = [{"type": "image_url", "image_url": {"url": "data:,"}}]
OPTIONAL = sorted(set(ChatCompletionRequest.model_fields) - {"messages", "ignore_eos", "cache_prompt"})
NEUTRAL: dict[str, list[Any]] = {
    "frequency_penalty": [0, 0.0],
    "presence_penalty": [0, 0.0],
    "logit_bias": [{}],
    "tools": [[]],
    "functions": [[]],
    "tool_choice": ["none", "auto"],
    "function_call": ["none", "auto"],
    "parallel_tool_calls": [True, False],
    "store": [False],
    "metadata": [{}, {"session": "1"}],
    "service_tier": ["auto", "default"],
    "modalities": [["text"]],
    "reasoning_effort": ["none"],
    "verbosity": ["medium"],
    "n": [1],
    "stream_options": [{"include_usage": True}],
    "user": ["ann"],
    "safety_identifier": ["ann"],
    "prompt_cache_key": ["a"],
}
REFUSED: list[tuple[str, Any]] = [
    ("frequency_penalty", 0.5),
    ("frequency_penalty", False),
    ("presence_penalty", -1),
    ("logit_bias", {"50256": -100}),
    ("tools", [{"type": "function", "function": {"name": "a"}}]),
    ("tools", {}),
    ("functions", [{"name": "a"}]),
    ("tool_choice", "required"),
    ("tool_choice", {"type": "function", "function": {"name": "a"}}),
    ("function_call", {"name": "a"}),
    ("parallel_tool_calls", "yes"),
    ("store", True),
    ("metadata", "text"),
    ("service_tier", "flex"),
    ("modalities", ["text", "audio"]),
    ("reasoning_effort", "high"),
    ("verbosity", "low"),
    ("audio", {"voice": "a"}),
    ("prediction", {"type": "content", "content": "a"}),
    ("web_search_options", {}),
    ("grammar", 'root ::= "a"'),
    ("json_schema", {"type": "string"}),
    ("samplers", ["top_k"]),
    ("id_slot", 0),
    ("unheard_of", None),
    ("stop", ""),
    ("stop", [""]),
    ("stop", ["a", ""]),
    ("stop", 1),
    ("stop", [None]),
    ("stop", ["a"] * 100),
    ("max_tokens", 0),
    ("max_tokens", -1),
    ("max_tokens", 2**31),
    ("max_tokens", 10**30),
    ("max_tokens", "5"),
    ("max_tokens", True),
    ("max_tokens", 1.5),
    ("max_completion_tokens", 10**12),
    ("seed", 2**32),
    ("seed", -(2**40)),
    ("seed", 2**70),
    ("seed", "1"),
    ("n", 9),
    ("n", 0),
    ("n", True),
    ("tool_choice", "always"),
    ("stream_options", {"include_everything": True}),
    ("top_logprobs", 2),
    ("messages", [{"role": "user", "content": "a", "tool_call_id": "b"}]),
    ("messages", [{"role": "tool", "content": "a"}]),
    ("temperature", "0.5"),
    ("temperature", 3),
    ("temperature", True),
    ("temperature", [0]),
    ("top_p", 0),
    ("top_p", "1"),
    ("stream", "yes"),
    ("stream", 1),
    ("stream_options", {"include_usage": "yes"}),
    ("logprobs", 3),
    ("top_logprobs", 100),
    ("user", 5),
    ("messages", []),
    ("messages", "Where?"),
    ("messages", None),
    ("messages", [{"role": "user", "content": IMAGE}]),
    ("messages", [{"role": "user", "content": [{"type": "text"}]}]),
    ("messages", [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {}}]}]),
    ("messages", [{"role": "user", "content": 5}]),
    ("messages", [{"role": "user"}]),
    ("messages", [{"role": "user", "content": None}]),
    ("messages", [{"role": "tool", "content": "a", "tool_call_id": "b"}]),
    ("messages", [{"role": "function", "content": "a", "name": "b"}]),
    ("messages", [{"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]}]),
    ("messages", [{"role": "assistant", "refusal": "no"}]),
    ("messages", [{"role": "user", "content": "a", "name": 5}]),
    ("messages", [{"content": "a"}]),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[httpx.Client]:
    with chat_service(chat_release(tmp_path_factory.mktemp("request"))) as (_, client):
        ask(client, body())
        yield client


@pytest.fixture(scope="module")
def official(client) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="none", max_retries=0)


def text_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("name", OPTIONAL)
def test_null_is_as_good_as_left_out(client, name):
    """For each optional field; the answer is the same."""
    assert text_of(ask(client, body(**{name: None}))) == text_of(ask(client, body()))


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in NEUTRAL for value in NEUTRAL[name]], ids=str)
def test_values_that_change_nothing_are_taken(client, name, value):
    assert text_of(ask(client, body(**{name: value}))) == text_of(ask(client, body()))


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=lambda value: json.dumps(value)[:60])
def test_values_that_would_change_something_are_refused_by_name(client, name, value):
    """400 in OpenAI's form, with the field as its param, before the engine sees it."""
    response = ask(client, body() | {name: value})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"].split(".")[0] == name
    assert error["message"].startswith(name)


def test_every_form_of_the_same_conversation_is_the_same(client):
    """Text parts, the role developer, names and what the client itself puts into messages."""
    plain = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where?"}]
    expected = text_of(ask(client, {"messages": plain}))
    answered = {"annotations": [], "refusal": None, "audio": None, "function_call": None, "tool_calls": None}
    for messages in (
        [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Where?"}],
        [
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": TEXT_PARTS},
        ],
        [plain[0], {"role": "user", "content": "Where?", "name": "ann"}],
        [plain[0] | {"name": None}, plain[1] | answered],
    ):
        assert text_of(ask(client, {"messages": messages})) == expected


def test_the_official_client_is_understood(official):
    """A conversation of two turns, whose first answer goes back as the client gives it; streamed too."""
    messages: list[Any] = [{"role": "developer", "content": "Name a city."}, {"role": "user", "content": TEXT_PARTS}]
    options: dict[str, Any] = {"model": "small", "max_tokens": 24, "stop": None, "user": openai.omit}
    first = official.chat.completions.create(messages=messages, tools=[], store=False, metadata={"a": "b"}, **options)
    messages += [first.choices[0].message.model_dump(), {"role": "user", "content": "And then?", "name": "ann"}]
    whole = official.chat.completions.create(messages=messages, **options).choices[0].message.content
    with official.chat.completions.create(messages=messages, stream=True, **options) as stream:
        assert "".join(event.choices[0].delta.content or "" for event in stream if event.choices) == whole
    with pytest.raises(openai.BadRequestError) as caught:
        official.chat.completions.create(messages=messages, tools=[{"type": "function"}], **options)
    assert caught.value.param == "tools.0.function"


@pytest.mark.parametrize("depth", [30, 255, 1_000, 100_000])
@pytest.mark.parametrize("opens", ["[", '{"a":'], ids=["lists", "objects"])
@pytest.mark.parametrize("place", ["messages", "metadata", "response_format", "unknown"])
def test_deep_json_is_a_bad_request(client, depth, opens, place):
    """Wherever it stands, and however deep: 400, never 500."""
    deep = opens * depth + "1" + ("]" if opens == "[" else "}") * depth
    fields = {"messages": json.dumps(body()["messages"]), place: deep}
    text = "{" + ",".join(f'"{name}": {value}' for name, value in fields.items()) + "}"
    response = client.post("/v1/chat/completions", content=text)
    taken = place == "metadata" and opens != "[" and depth < 200  # which is any object
    assert response.status_code == (200 if taken else 400), response.text
    assert taken or response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("content", [b"", b"nonsense", b"[]", b'"a"', b"\xff", b'{"messages": NaN}', b"{}"], ids=repr)
def test_what_is_no_request_is_a_bad_request(client, content):
    response = client.post("/v1/chat/completions", content=content)
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")


def test_a_stop_ends_the_answer_before_itself(client):
    request = body(response_format=FREE, max_tokens=20, ignore_eos=True)
    text = text_of(ask(client, request))
    stop = text[len(text) // 2 :][:3]
    assert text_of(ask(client, request | {"stop": [stop]})) == text.split(stop)[0]
