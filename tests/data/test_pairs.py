"""Users' rows of three shapes become pairs; answers are held against the schema and written in one way."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from tasks.core.errors import DataError
from tasks.data.config import Answer
from tasks.data.language.near_duplicates import NearDuplicateIndex
from tasks.data.language.pairs import PairFormat, read_pairs

SCHEMA = {
    "oneOf": [
        {
            "type": "object",
            "properties": {"do": {"const": "buy"}, "item": {"$ref": "#/$defs/item"}, "count": {"type": "integer"}},
            "required": ["do", "item"],
            "additionalProperties": False,
        },
        {"type": "object", "properties": {"do": {"const": "none"}}, "required": ["do"], "additionalProperties": False},
    ],
    "$defs": {"item": {"type": "object", "properties": {"name": {"type": "string"}, "size": {"enum": ["S", "L"]}}}},
}
FORM = PairFormat(Answer(json_schema=SCHEMA))
ANSWER = '{"count": 2, "item": {"size": "L", "name": "hat"}, "do": "buy"}'
WRITTEN = '{"do":"buy","item":{"name":"hat","size":"L"},"count":2}'


def one(**row):
    return read_pairs("mine", [row], FORM)[0]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [user("Two large hats"), {"role": "model", "content": ANSWER}]},
        {"messages": json.dumps([user("Two large hats"), {"role": "model", "content": ANSWER}])},
        {"messages": [{"role": "system", "content": "Obey"}, user("Two large hats"), {"role": "m", "content": ANSWER}]},
        {"prompt": "Two large hats", "completion": ANSWER},
        {"prompt": "Two large hats", "completion": json.loads(ANSWER)},
        {"instruction": "Two large hats", "input": "", "output": ANSWER},
        {"prompt": [user("Two large hats")], "completion": [{"role": "model", "content": ANSWER}]},
        {"prompt": "Two large hats", "completion": json.dumps(ANSWER)},
    ],
)
def test_every_shape_gives_the_same_pair(row):
    """Chat messages, prompt and completion, text or structure: one row, with keys in the order of the schema."""
    pair = one(**row)
    assert (pair.messages, pair.answer, pair.problem) == ((user("Two large hats"),), WRITTEN, None)
    assert pair.pair_id == one(prompt="Two large hats", completion=ANSWER).pair_id


def test_a_preference_row_keeps_the_rejected_answer():
    """The chosen answer is the right one; the rejected one is carried, JSON or not."""
    pair = one(prompt="Two hats", chosen=ANSWER, rejected='{"do": "none"}')
    assert (pair.answer, pair.rejected) == (WRITTEN, '{"do":"none"}')
    assert one(prompt="Two hats", chosen=ANSWER, rejected="Sure!").rejected == "Sure!"
    assert pair.pair_id != one(prompt="Two hats", chosen=ANSWER, rejected="Sure!").pair_id


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "Hats", "completion": "Sure!"}, "not JSON: 'Sure!'"),
        ({"prompt": "Hats", "completion": '{"do": "sell"}'}, "breaks the schema: do: 'sell' is none of 'buy', 'none'"),
        ({"prompt": "Hats", "completion": '{"do": "buy", "item": {"size": "M"}}'}, "breaks the schema: item.size: 'M'"),
        ({"prompt": " ", "completion": ANSWER}, "no message"),
        ({"messages": [user("Hats")]}, "not an answer"),
        ({"messages": []}, "not an answer"),
        ({"prompt": "Hats", "chosen": ANSWER, "rejected": WRITTEN}, "is the chosen one"),
    ],
)
def test_a_row_that_can_not_be_used_says_why(row, says):
    """Each bad row carries its reason to the quarantine; none is dropped silently."""
    assert says in (one(**row).problem or "")


@pytest.mark.parametrize(
    ("message", "fits"),
    [("Two HATs", True), ("a hat, please", True), ("two hats", False), ("chat", False), ("something warm", False)],
)
def test_a_stated_value_stands_in_the_message(message, fits):
    """A model that learns to state what nobody said would hallucinate: such a row is put aside."""
    form = PairFormat(Answer(json_schema=SCHEMA, stated=("name",)))
    value = "HATs" if message == "Two HATs" else "hat"
    answer = json.dumps({"do": "buy", "item": {"name": value}})
    problem = read_pairs("mine", [{"prompt": message, "completion": answer}], form)[0].problem
    assert problem == (None if fits else f"the message does not say the answer's name: {value!r}")


def test_columns_of_no_shape_are_refused():
    """The error names the columns that there are and those that there may be."""
    with pytest.raises(DataError, match=r"(?s)question, reply.*messages.*prompt, chosen, rejected.*prompt, completion"):
        one(question="a", reply="b")


def test_a_schema_that_is_none_is_refused():
    with pytest.raises(ValidationError, match=r"type must be one or several of string"):
        Answer(json_schema={"type": "objekt"})


def test_likeness_finds_what_comparing_all_finds():
    """The quick way to near duplicates misses none and adds none."""
    import random

    from tasks.data.language.near_duplicates import jaccard, word_grams

    chance = random.Random(1)
    texts = []
    for _ in range(300):
        base = texts[chance.randrange(len(texts))].split() if texts and chance.random() < 0.7 else []
        words = base or [chance.choice("abcdefgh") for _ in range(chance.randrange(1, 40))]
        if chance.random() < 0.8:
            words[chance.randrange(len(words))] = chance.choice("abcdefgh")
        texts.append(" ".join(words))
    grams = [word_grams(text) for text in texts]
    for at_least in (0.6, 0.9, 1.0):
        likeness = NearDuplicateIndex(at_least)
        found = 0
        for at, text in enumerate(texts):
            alike = [i for i in range(at) if jaccard(grams[at], grams[i]) >= at_least]
            assert likeness.find(text) == min(alike, default=None)
            found += bool(alike)
            likeness.add(text)
        assert 20 < found < 300


def test_case_and_punctuation_make_no_other_message():
    likeness = NearDuplicateIndex(1.0)
    likeness.add("Is UA1545 on time?")
    assert likeness.find("is ua1545 ON time") == 0
    assert likeness.find("is UA1546 on time") is None


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "Two large hats"}],
        [{"type": "text", "text": "Two large "}, {"type": "input_text", "text": "hats"}],
    ],
)
def test_parts_of_text_are_joined(content):
    """FAULTS 12: a message's content as a list of parts is its text."""
    pair = one(messages=[{"role": "user", "content": content}, {"role": "assistant", "content": ANSWER}])
    assert (pair.text, pair.problem) == ("Two large hats", None)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "message 1 has a part that is not text"),
        ({"content": None, "tool_calls": [{"id": "1"}]}, "message 1 has tool_calls"),
        ({"content": "Two hats", "priority": 3}, "message 1 has priority"),
    ],
)
def test_a_message_that_would_lose_something_is_refused(message, says):
    """FAULTS 12, 13: other parts, tool calls and further keys are refused with the message's number."""
    messages = [{"role": "user", **message}, {"role": "assistant", "content": ANSWER}]
    assert says in str(one(messages=messages).problem)


def test_system_messages_that_differ_by_line_are_refused():
    """FAULTS 13: what only some lines say before the message is not dropped; one system message of all is."""

    def row(system: str) -> dict:
        return {
            "messages": [
                {"role": "system", "content": system},
                user("Two large hats"),
                {"role": "model", "content": ANSWER},
            ]
        }

    same = read_pairs("mine", [row("Obey"), row("Obey")], FORM)
    assert [pair.problem for pair in same] == [None, None]
    differ = read_pairs("mine", [row("Obey"), row("Be short")], FORM)
    assert all("system message" in str(pair.problem) for pair in differ)


def test_a_text_and_a_label_are_a_pair():
    """FAULTS 46: the label is the answer's one key."""
    form = PairFormat(Answer(json_schema={"type": "object", "properties": {"label": {"type": "string"}}}))
    (pair,) = read_pairs("mine", [{"text": "[1] hats", "label": "NA"}], form)
    assert (pair.text, pair.answer, pair.problem) == ("[1] hats", '{"label":"NA"}', None)


def test_nulls_of_an_answer_stay():
    """FAULTS 10: an answer is the JSON of the file, nulls included."""
    (pair,) = read_pairs("mine", [{"prompt": "x", "completion": {"a": None}}], PairFormat(Answer(json_schema={})))
    assert pair.answer == '{"a":null}'
