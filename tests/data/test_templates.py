"""Wordings and facts become messages: what holds of each, and what is refused."""

from __future__ import annotations

import json
import random
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest

from flows.case import load_case
from tasks.core.errors import CaseError, DataError
from tasks.data.config import Answer, Pairs, Source
from tasks.data.language.curate import check_pairs
from tasks.data.language.near_duplicates import NearDuplicateIndex
from tasks.data.language.pairs import PairFormat
from tasks.data.language.templates import add_typo, facts_of_side, generate_pairs, read_facts

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
AS_OF = datetime(2020, 3, 31, tzinfo=UTC)
SCHEMA = {
    "oneOf": [
        {
            "properties": {"do": {"const": "buy"}, "item": {"type": "string"}, "n": {"type": "integer"}},
            "required": ["do", "item", "n"],
        },
        {"properties": {"do": {"const": "none"}}, "additionalProperties": False},
    ]
}
ANSWER = Answer(json_schema=SCHEMA, abstain={"do": "none"}, stated=("item", "n"))
FACTS = "SELECT DATE '2020-01-01' + (i % 90)::INTEGER AS day, i AS n, 'item-' || i AS item FROM range(500) r(i)"
TEMPLATES = {
    "intents": {
        "buy": {
            "facts": FACTS,
            "answer": {"do": "buy", "item": "{item}", "n": "{n}"},
            "train": ["Buy {n} of {item} please", "I want {item}, make it {n}"],
            "held_out": ["Would like {n} pieces of {item}"],
        },
        "none": {"answer": {"do": "none"}, "train": ["Sing something nice"], "held_out": ["Who are you really"]},
    },
    "openers": {"train": [f"Hello {i}!" for i in range(9)], "held_out": [f"Evening {i}." for i in range(9)]},
}
FORM = PairFormat(ANSWER)


def pairs(**changes) -> Pairs:
    """The pairs above, with parts changed; a key a__b__c reaches inside the templates."""
    templates = json.loads(json.dumps(TEMPLATES))
    for path, value in changes.items():
        if "__" in path:
            *parents, last = path.split("__")
            at = templates
            for parent in parents:
                at = at[parent]
            at[last] = value
    plain = {key: value for key, value in changes.items() if "__" not in key}
    templates["typos"] = plain.pop("typos", 0.0)
    return Pairs.model_validate({"templates": templates, **plain})


def generate(side: str, count: int, of: Pairs):
    with duckdb.connect() as db:
        facts = facts_of_side(read_facts(db, of.templates), side, of, AS_OF)
    return generate_pairs(side, count, of, form=FORM, facts=facts, seen=NearDuplicateIndex(0.9))


def test_messages_say_what_the_answer_states():
    """Every stated value stands in the message as it is, a number that stands alone stays a number."""
    of = generate("train", 60, pairs())
    buying = [(pair.text, json.loads(pair.answer)) for pair in of.pairs if pair.intent == "buy"]
    assert len(buying) == 30
    assert all(answer["item"] in text and str(answer["n"]) in text for text, answer in buying)
    assert all(isinstance(answer["n"], int) for _, answer in buying)


def test_sides_share_no_wording_opener_or_day():
    """What the evaluation is asked was never learned from."""
    of = {side: generate(side, 60, pairs()).pairs for side in ("train", "held_out")}
    assert not {p.template for p in of["train"]} & {p.template for p in of["held_out"]}
    assert max(p.day for p in of["train"] if p.day) < date(2020, 3, 17) <= min(p.day for p in of["held_out"] if p.day)
    assert not any(p.text.startswith("Hello") for p in of["held_out"])


def test_too_few_templates_give_fewer_pairs():
    """Where no further message can be made, there are fewer, and the notes say so."""
    of = generate("train", 60, pairs())
    nothing = [pair.text for pair in of.pairs if pair.intent == "none"]
    assert len(nothing) == len(set(nothing)) == 10  # one wording, nine openers
    assert of.short == ["none, train: 10 of 30 pairs; add templates, facts, openers or closers."]


def test_shares_and_seed_decide():
    """An intent with three times the share comes three times as often; the same seed gives the same pairs."""
    of = pairs(intents__buy__share=3.0)
    first = generate("train", 40, of)
    assert [pair.intent for pair in first.pairs].count("buy") == 30
    assert first == generate("train", 40, of)
    assert first != generate("train", 40, pairs(intents__buy__share=3.0, seed=1))


def test_typing_errors_touch_no_fact():
    """A mistyped message still holds the values that the answer states."""
    of = generate("train", 200, pairs(typos=1.0))
    buying = [pair for pair in of.pairs if pair.intent == "buy"]
    assert all(json.loads(pair.answer)["item"] in pair.text for pair in buying)
    assert sum("please" not in p.text and "want" not in p.text for p in buying) > 10
    parts = ["", "KEEPTHIS", " abcdefgh"]
    add_typo(parts, random.Random(0))
    assert parts[:2] == ["", "KEEPTHIS"]
    assert parts[2] != " abcdefgh"


def test_personal_data_in_facts_is_masked_in_message_and_answer():
    """Message and answer name the same placeholder."""
    of = generate("train", 20, pairs(intents__buy__facts=FACTS.replace("'item-' || i", "'jo' || i || '@mail.org'")))
    buying = [pair for pair in of.pairs if pair.intent == "buy"]
    assert all("[EMAIL]" in pair.text and json.loads(pair.answer)["item"] == "[EMAIL]" for pair in buying)
    assert of.redacted["email"] == len(buying) == 10


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"intents__buy__train": ["Buy {n} of it"]}, r"buy.train: the answer needs \{item\}, which 'Buy \{n\}"),
        ({"intents__buy__held_out": ["Buy {item"]}, r"buy.held_out: a brace that is no \{placeholder\}"),
        (
            {"intents__buy__answer": {"do": "sell", "n": 1}},
            r"buy.answer breaks the schema: do: 'sell' is none of 'buy', 'none'",
        ),
        ({"intents__none__held_out": ["sing SOMETHING nice!"]}, "a template is both train and held_out"),
        ({"openers__held_out": ["hello 3"]}, "an opener is both train and held_out"),
        ({"sources": ["shop"], "safety": "bad"}, "no source is called bad, shop; there are: sales"),
    ],
)
def test_invalid_templates_are_refused_without_data(changes, says):
    """`driftline validate` finds it, before anything runs."""
    with pytest.raises(CaseError, match=says):
        check_pairs(pairs(**changes), ANSWER, {"sales": Source(uri="file://x.csv", key=("a",))})


def test_all_that_is_wrong_comes_at_once():
    with pytest.raises(CaseError, match="3 to correct"):
        check_pairs(
            pairs(intents__buy__train=["Buy {n} of it"], intents__none__held_out=["Sing something nice"]),
            ANSWER.model_copy(update={"abstain": {"do": "nothing"}}),
            {},
        )


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"intents__buy__facts": "SELECT nothing"}, CaseError, "buy.facts: Binder Error"),
        ({"intents__buy__facts": "SELECT 1 AS n"}, CaseError, r"buy.facts: no column for \{item\}; there are: n"),
        ({"intents__buy__facts": FACTS.replace("500", "0")}, CaseError, "buy.facts: no row"),
        ({"intents__buy__facts": FACTS.replace("DATE '2020", "DATE '2021")}, DataError, "no facts for buy"),
        (
            {"intents__buy__facts": FACTS.replace("i AS n", "'x' AS n")},
            CaseError,
            "buy: the answer breaks the schema: n",
        ),
    ],
)
def test_facts_that_do_not_fit_are_refused(changes, error, says):
    """SQL that does not run, columns and days that lack, and facts that break the schema each say where."""
    with pytest.raises(error, match=f"(?s){says}"):
        generate("train", 20, pairs(**changes))


def test_the_shipped_templates_are_many_and_disjoint():
    """Each intent has at least 12 held-out and 30 training wordings, and the case's own check passes."""
    for path in CONFIGS.glob("*/templates.yaml"):
        case = load_case(path.parent.name, CONFIGS)
        check_pairs(case.pairs, case.answer, case.data.sources)
        for intent in case.pairs.templates.intents.values():
            assert len(set(intent.train)) >= 30
            assert len(set(intent.held_out)) >= 12
        return
    pytest.fail("no case has templates")
