"""Promise: functions reach a model whose template has tools, and no other; several answers are several choices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tasks.data.language.base_model import open_base
from tests.language_case import SMOLLM
from tests.serving.small_chat import chat_release, chat_service

TEMPLATE = (
    "{%- if tools %}<|im_start|>system\nCall a function as <tool_call>{...}</tool_call>. Functions: <tools>"
    "{%- for tool in tools %}\n{{ tool | tojson }}{%- endfor %}\n</tools><|im_end|>\n{%- endif %}"
    "{%- for message in messages %}"
    "{%- if message.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ message.content }}\n</tool_response>"
    "<|im_end|>\n"
    "{%- elif message.tool_calls %}<|im_start|>assistant\n{{ message.content or '' }}"
    "{%- for call in message.tool_calls %}\n<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "\n</tool_call>{%- endfor %}<|im_end|>\n"
    "{%- else %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{%- endif %}"
    "{%- endfor %}{%- if add_generation_prompt %}<|im_start|>assistant\n{%- endif %}"
)
CITY = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Paris"]}}, "required": ["city"]}
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "description": "Looks it up.", "parameters": CITY}}
    for name in ("weather", "population")
]
QUESTION: Any = [{"role": "user", "content": "How is the weather in Oslo?"}]


def turns_of(city: str, number: int) -> list[Any]:
    """A question, the call that looks up its answer, the result, and the answer."""
    function = {"name": "weather", "arguments": json.dumps({"city": city})}
    return [
        {"role": "user", "content": f"How is the weather in {city}?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": f"c{number}", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": f"c{number}", "content": "Sunny."},
        {"role": "assistant", "content": "Sunny."},
    ]


# a model of 135M parameters calls a function when it has seen how
CONVERSATION: Any = [*turns_of("Paris", 1), *turns_of("Oslo", 2), *turns_of("Paris", 3), *QUESTION]


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[openai.OpenAI]:
    """The official client of a release whose template has tools."""
    folder = tmp_path_factory.mktemp("tools")
    release = chat_release(folder, context=1024)
    base = open_base(SMOLLM.model_copy(update={"chat_template": TEMPLATE}), folder, folder)
    (release / "model.gguf").write_bytes(base.served.read_bytes())
    with chat_service(release) as (_, http):
        yield openai.OpenAI(base_url=f"{http.base_url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Iterator[openai.OpenAI]:
    """The official client of a release whose template has none."""
    with chat_service(chat_release(tmp_path_factory.mktemp("plain"))) as (_, http):
        yield openai.OpenAI(base_url=f"{http.base_url}/v1", api_key="none", max_retries=0)


def called(message: Any) -> list[tuple[str, str]]:
    return [(call.function.name, json.loads(call.function.arguments)["city"]) for call in message.tool_calls or []]


def test_a_function_is_called_and_its_result_goes_back(client):
    """By the model's choice, and by the client's; the result is a turn of the conversation."""
    named: Any = {"type": "function", "function": {"name": "population"}}
    for choice, function in (("auto", "weather"), ("required", "weather"), (named, "population")):
        first = client.chat.completions.create(
            model="small", messages=CONVERSATION, tools=TOOLS, tool_choice=choice, max_tokens=100
        )
        assert first.choices[0].finish_reason == "tool_calls"
        assert called(first.choices[0].message)[0] == (function, "Oslo")
    call = (first.choices[0].message.tool_calls or [])[0]
    messages: Any = [*CONVERSATION, first.choices[0].message.model_dump()]
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "700,000"})
    last = client.chat.completions.create(
        model="small", messages=messages, tools=TOOLS, tool_choice="none", max_tokens=8
    )
    assert last.choices[0].message.content
    assert last.usage
    assert first.usage
    assert last.usage.prompt_tokens > first.usage.prompt_tokens


def test_a_streamed_call_is_that_of_the_whole_answer(client):
    """The client's own types put the parts together."""
    with client.chat.completions.stream(
        model="small", messages=CONVERSATION, tools=TOOLS, tool_choice="required", max_tokens=100
    ) as stream:
        assert called(stream.get_final_completion().choices[0].message) == [("weather", "Oslo")]


def test_a_model_without_tools_refuses_them_by_name(plain):
    """llama.cpp would ignore them: the model would answer as if it had not seen them."""
    with pytest.raises(openai.BadRequestError) as caught:
        plain.chat.completions.create(model="small", messages=QUESTION, tools=TOOLS)
    assert caught.value.param == "tools"
    turns = [*QUESTION, {"role": "tool", "tool_call_id": "a", "content": "Sunny"}]
    with pytest.raises(openai.BadRequestError) as caught:
        plain.chat.completions.create(model="small", messages=turns)
    assert caught.value.param == "messages"


def test_several_answers_are_several_choices(plain):
    """`n` answers, each with its index; the usage counts all of them. With a seed they come again."""
    options: dict[str, Any] = {"n": 2, "temperature": 1.5, "seed": 7, "max_tokens": 6}
    free: Any = {"type": "text"}
    answers = [
        plain.chat.completions.create(model="small", messages=QUESTION, response_format=free, **options)
        for _ in range(2)
    ]
    for answer in answers:
        assert [choice.index for choice in answer.choices] == [0, 1]
        assert answer.usage
        assert answer.usage.completion_tokens == 12
    texts = [[choice.message.content for choice in answer.choices] for answer in answers]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) == 2
    with pytest.raises(openai.BadRequestError) as caught:
        plain.chat.completions.create(model="small", messages=QUESTION, stream=True, n=2)
    assert caught.value.param == "n"


def test_log_probabilities_come_with_each_token(plain):
    """As many alternatives as are wanted."""
    answer = plain.chat.completions.create(
        model="small", messages=QUESTION, logprobs=True, top_logprobs=2, max_completion_tokens=4
    )
    tokens = answer.choices[0].logprobs.content
    assert tokens
    assert len(tokens) <= 4
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in tokens)
