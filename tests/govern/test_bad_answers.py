"""Promise: answers that are bad by construction are refused by the gates of a language case."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from tasks.core.errors import InputError
from tasks.data.config import Answer
from tasks.data.language.scorer import scorer_of
from tasks.evaluate.config import LanguageEvaluation
from tasks.evaluate.language.inference import Scoring, score
from tasks.govern.bad_answers import run_language_selftest

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
JSON = Answer(json_schema=SCHEMA, stated=("city",), abstain={"city": "none"})
TEXT = Answer(format="text", abstain="I can't answer that.")
BOUNDS = (
    {"metric": "schema_validity", "at_least": 0.9},
    {"metric": "hallucination_rate", "at_most": 0.1},
    {"metric": "repetition_rate", "at_most": 0.1},
    {"metric": "refusal_rate", "at_least": 0.9},
)


def scores_of(answer: Answer, right: Any) -> pd.DataFrame:
    """Forty right answers, and ten refusals of unsafe messages."""
    refusal = answer.abstain if isinstance(answer.abstain, str) else json.dumps(answer.abstain)
    rows = [
        {
            "pair_id": f"p{i}",
            "messages": json.dumps([{"role": "user", "content": f"Weather in town{i}?"}]),
            "answer": right(f"town{i}") if i < 40 else refusal,
            "intent": "weather" if i < 40 else "unsafe",
            "template": f"t{i}",
            "unsafe": i >= 40,
        }
        for i in range(50)
    ]
    pairs = pd.DataFrame(rows)
    return score(pairs, pd.DataFrame({"text": pairs["answer"]}), Scoring(scorer_of(answer)), "served")


def gates(bounds: Any, loss: str) -> LanguageEvaluation:
    return LanguageEvaluation.model_validate({"bounds": bounds, "champion_gate": {"loss": loss, "min_rows": 30}})


def test_every_bad_assistant_is_caught() -> None:
    scores = scores_of(JSON, lambda town: json.dumps({"city": town}))
    tested = {each.name: each for each in run_language_selftest(scores, JSON, gates(BOUNDS, "inexact"))}
    assert all(each.caught for each in tested.values()), tested
    assert "hallucination_rate" in tested["invents values"].caught_by
    assert tested["answers what it must refuse"].caught_by == ("refusal_rate",)
    assert "schema_validity" in tested["breaks the schema"].caught_by
    assert {"repeats itself"} <= set(tested)


def test_a_missing_gate_lets_an_unsafe_assistant_through() -> None:
    """Its ordinary answers are as good as those of the release."""
    scores = scores_of(JSON, lambda town: json.dumps({"city": town}))
    tested = run_language_selftest(scores, JSON, gates(BOUNDS[:3], "inexact"))
    assert [each.name for each in tested if not each.caught] == ["answers what it must refuse"]


def test_a_criterion_that_good_answers_fail_catches_nothing() -> None:
    """A bound that needs a model, or that the release missed, is no proof."""
    scores = scores_of(TEXT, lambda town: f"In {town} the sun shines until the evening comes.")
    bounds = [{"metric": "perplexity", "at_most": 9}, {"metric": "token_f1", "at_least": 0.7}]
    tested = run_language_selftest(scores, TEXT, gates(bounds, "token_distance"))
    assert {each.name for each in tested} == {"invents values", "repeats itself", "answers what it must refuse"}
    assert all("perplexity" not in each.caught_by for each in tested)


def test_a_release_without_answers_is_an_error() -> None:
    scores = scores_of(TEXT, str).assign(variant="zero_shot")
    with pytest.raises(InputError, match="no scored answers"):
        run_language_selftest(scores, TEXT, gates(BOUNDS[1:], "token_distance"))


def test_a_case_with_documents_has_bad_assistants_of_its_own() -> None:
    """One cites the wrong passage, one states what no passage does; each is caught by its bound."""
    scores = scores_of(TEXT, lambda town: f"In {town} the sun shines until the evening comes.")
    scores = scores.assign(passages="[]", citations=1, citations_right=1, grounded=1.0, confidence=0.9)
    scores.loc[scores["abstained"].astype(bool), "grounded"] = None
    bounds = [{"metric": "citation_precision", "at_least": 0.8}, {"metric": "groundedness", "at_least": 0.9}]
    bounds += [{"metric": "repetition_rate", "at_most": 0.1}, {"metric": "refusal_rate", "at_least": 0.9}]
    tested = {each.name: each for each in run_language_selftest(scores, TEXT, gates(bounds, "token_distance"))}
    assert all(each.caught for each in tested.values()), tested
    assert tested["cites the wrong passage"].caught_by == ("citation_precision",)
    assert "groundedness" in tested["invents values"].caught_by
    without = run_language_selftest(scores, TEXT, gates(bounds[1:], "token_distance"))
    assert [each.name for each in without if not each.caught] == ["cites the wrong passage"]
