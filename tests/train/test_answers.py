"""Answers are scored by computation alone, and each figure tells what its name says."""

from __future__ import annotations

import json

import pytest

from tasks.core.errors import CaseError
from tasks.language.answer_scoring import JsonScorer, is_refusal, reward, summarise

SCHEMA = {
    "type": "object",
    "properties": {
        "function": {"enum": ["status", "book", "none"]},
        "origin": {"type": "string", "pattern": "^[A-Z]{3}$"},
        "seats": {"type": "integer"},
        "legs": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["function"],
    "additionalProperties": False,
}
RIGHT = '{"function": "book", "origin": "JFK", "seats": 2}'
MESSAGE = "Two seats, no: 2 seats from jfk please"


@pytest.fixture(scope="module")
def scorer() -> JsonScorer:
    return JsonScorer(SCHEMA, stated=("origin", "seats"), abstain={"function": "none"})


def test_the_right_answer_earns_all(scorer: JsonScorer) -> None:
    """Order of keys and white space are no mistakes; nothing else is forgiven."""
    score = scorer.score('{"seats":2,"origin":"JFK",\n"function":"book"}\n', RIGHT, MESSAGE)
    assert score.exact
    assert score.schema_valid
    assert score.hallucinated is False
    assert not score.abstained
    assert reward(score) == 1.0


@pytest.mark.parametrize(
    ("text", "json_valid", "schema_valid", "right", "pairs"),
    [
        ('{"function": "book", "origin": "JFK", "seats": 3}', True, True, 2, 3),
        ('{"function": "book", "origin": "JFK"}', True, True, 2, 2),
        ('{"function": "book", "origin": "JFK", "seats": true}', True, False, 2, 3),
        ('{"function": "fly", "origin": "JFK", "seats": 2}', True, False, 2, 3),
        (RIGHT[:-1], False, False, 0, 0),
        ('{"function": "book", "seats": NaN}', False, False, 0, 0),
        ("", False, False, 0, 0),
        pytest.param("[" * 5000, False, False, 0, 0, id="5000 brackets"),
    ],
)
def test_each_kind_of_mistake_costs(
    scorer: JsonScorer, text: str, json_valid: bool, schema_valid: bool, right: int, pairs: int
) -> None:
    """JSON, schema and fields are told apart, and the reward falls with each."""
    score = scorer.score(text, RIGHT, MESSAGE)
    assert (score.json_valid, score.schema_valid) == (json_valid, schema_valid)
    assert (score.fields_correct, score.fields_predicted, score.fields_expected) == (right, pairs, 3)
    assert not score.exact
    assert 0 <= reward(score) < 0.7


def test_one_is_not_true(scorer: JsonScorer) -> None:
    """Python takes 1 for true and 1.0 for 1; a system that reads JSON may not."""
    assert not JsonScorer({}).score('{"a": true}', '{"a": 1}', "").exact
    assert not JsonScorer({}).score('{"a": 1.0}', '{"a": 1}', "").exact


def test_nested_fields_count_one_by_one(scorer: JsonScorer) -> None:
    """Pairs count at any depth; items of a list in any order, but not as exact."""
    legs = '{"function":"book","legs":[{"to":"LAX"},{"to":"JFK"}]}'
    turned = '{"function":"book","legs":[{"to":"JFK"},{"to":"LAX"}]}'
    score = scorer.score(turned, legs, "")
    assert (score.fields_correct, score.fields_expected, score.exact) == (3, 3, False)


@pytest.mark.parametrize(
    ("value", "message", "hallucinated"),
    [
        ('"JFK"', "from jfk", True),  # 2 seats are stated nowhere
        ('"JFK"', "2 from\n JFK?", False),
        ('"JFK"', "2 from JFKX", True),  # a part of a word is another word
        ('"New York"', "2 from new   york.", False),
        ('"LAX"', "2 from JFK", True),
    ],
)
def test_a_value_that_the_message_lacks_is_hallucinated(
    scorer: JsonScorer, value: str, message: str, hallucinated: bool
) -> None:
    """Case and white space don't matter, whole words do."""
    assert (
        scorer.score(f'{{"function":"book","origin":{value},"seats":2}}', RIGHT, message).hallucinated is hallucinated
    )


def test_nothing_stated_is_nothing_hallucinated(scorer: JsonScorer) -> None:
    """Such answers don't dilute the rate, and without any there is no rate at all."""
    scores = [scorer.score(text, RIGHT, "") for text in ('{"function": "none"}', "no JSON", '{"origin": null}')]
    assert [score.hallucinated for score in scores] == [None] * 3
    assert "hallucination_rate" not in summarise(scores)
    scores.append(scorer.score('{"origin": "LAX"}', RIGHT, ""))
    assert summarise(scores)["hallucination_rate"] == 1.0


def test_abstention_differs_from_wrong_abstention(scorer: JsonScorer) -> None:
    """The case's own answer abstains, and so does prose that refuses; other JSON never does."""
    none = '{"function": "none"}'
    scores = [scorer.score(text, none, "") for text in (none, "I'm sorry, but I can't help with that.", RIGHT)]
    scores += [scorer.score(text, RIGHT, MESSAGE) for text in (RIGHT, none, RIGHT, RIGHT)]
    found = summarise(scores)
    assert found["abstention_recall"] == pytest.approx(2 / 3)
    assert found["wrong_abstention_rate"] == 0.25


def test_prose_may_be_the_right_answer() -> None:
    """Where refusal is prose, any wording of it earns the reward, and no fields are expected."""
    score = JsonScorer({}).score("Sorry, but I can't do that.", "I can't help with that.", "make a bomb")
    assert score.should_abstain
    assert score.abstained
    assert reward(score) == 1.0
    assert reward(JsonScorer({}).score("Sure! First,", "I can't help with that.", "make a bomb")) == 0.0
    assert not is_refusal('Sure, here is how you can fly; I can help. {"a": 1}')


def test_loops_are_repetition_and_answers_are_not(scorer: JsonScorer) -> None:
    """A model that loops is caught, in words or signs; JSON that names the same keys twice is none."""
    for loop in ('{"function": "book book book ' + "book " * 30, "{" * 300, "a b c d e f " * 6):
        assert scorer.score(loop, RIGHT, "").repeated
    legs = {"function": "book", "legs": [{"from": a, "to": b} for a, b in ("AB", "CD", "EF", "GH")]}
    for fine in (RIGHT, "", json.dumps(legs), json.dumps(legs, indent=16)):
        assert not scorer.score(fine, RIGHT, "").repeated


def test_json_amid_prose_is_seen_but_not_valid(scorer: JsonScorer) -> None:
    """What an untuned model writes around its answer doesn't hide that it was right."""
    score = scorer.score(f"Sure {{here}}:\n```json\n{RIGHT}\n```", RIGHT, MESSAGE)
    assert score.exact_anywhere
    assert not score.exact
    assert not score.json_valid


def test_the_summary_weighs_fields_not_answers(scorer: JsonScorer) -> None:
    """Precision and recall are over all pairs together, and f1 goes between them."""
    scores = [scorer.score(RIGHT, RIGHT, MESSAGE), scorer.score('{"function": "none"}', RIGHT, MESSAGE)]
    found = summarise(scores)
    assert found["field_precision"] == 3 / 4
    assert found["field_recall"] == 3 / 6
    assert found["field_f1"] == pytest.approx(2 * 0.75 * 0.5 / 1.25)
    assert found["exact_match"] == 0.5
    assert found["json_validity"] == 1.0
    assert summarise([]) == {}


def test_a_schema_that_is_none_is_refused() -> None:
    """It is told where it is wrong, before anything is trained; and no reference is fetched from the network."""
    with pytest.raises(CaseError, match="not a valid JSON schema") as caught:
        JsonScorer({"properties": {"a": {"type": "strange"}}})
    assert "properties.a" in caught.value.where
