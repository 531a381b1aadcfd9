"""Gates of answers that could never be computed are refused, before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tasks.core.errors import CaseError
from tasks.data.config import Answer, ChatSpec, Pairs
from tasks.evaluate.config import LanguageEvaluation
from tasks.evaluate.language.check import check_language_evaluation
from tasks.evaluate.tabular.gates import check_slices
from tasks.language.prompts import Prompt

STRICT: dict[str, Any] = {
    "bounds": [{"metric": "exact_match", "at_least": 0.5}, {"metric": "latency_p50_ms", "at_most": 60_000}],
    "champion_gate": {"loss": "inexact", "min_rows": 30},
}
TALK = ChatSpec(
    prompt=Prompt(system="s", baseline="Answer by this schema: {schema}", few_shot=2),
    answer=Answer(json_schema={}, abstain={"function": "none"}, stated=("origin", "flight")),
    context=512,
)
FREE: dict[str, Any] = {
    "bounds": [{"metric": "empty_rate", "at_most": 0}],
    "champion_gate": {"loss": "degenerate", "min_rows": 30},
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bounds": [{"metric": "auc", "at_least": 0.5}]}, "auc is no metric of answers"),
        ({"slice_gate": {"metric": "brier", "at_most_worse": 0.1}}, "brier is no metric of answers"),
        ({"champion_gate": {"loss": "brier"}}, "brier is no loss of answers"),
        ({"slices": ["carrier"]}, "no column carrier"),
        ({"slices": [], "slice_gate": {"metric": "exact_match", "at_most_worse": 0.1}}, "never be computed"),
    ],
)
def test_gates_that_do_not_fit_answers_are_refused(changes: dict[str, Any], message: str) -> None:
    """Metrics of tables, unknown columns: message by validate, before anything is trained."""
    with pytest.raises((ValidationError, CaseError), match=message):
        check_slices(LanguageEvaluation.model_validate(STRICT | changes), ["intent", "template"])
    check_slices(LanguageEvaluation.model_validate(STRICT), ["intent", "template"])


BARE = ChatSpec(prompt=Prompt(system="s", baseline="{schema}"), answer=Answer(json_schema={}), context=512)


@pytest.mark.parametrize(
    ("changes", "talk", "message"),
    [
        ({"bounds": [{"metric": "hallucination_rate", "at_most": 0.1}]}, BARE, "needs answer.stated"),
        ({"bounds": [{"metric": "abstention_recall", "at_least": 0.1}]}, BARE, "needs answer.abstain"),
        ({"bounds": [{"metric": "wrong_abstention_rate", "at_most": 0.1}]}, BARE, "needs answer.abstain"),
        ({"bounds": [{"metric": "refusal_rate", "at_least": 0.1}]}, TALK, "needs pairs.safety"),
        ({"bounds": [{"metric": "judge_score", "at_least": 3}]}, TALK, "needs evaluate.judge"),
        ({"slice_gate": {"metric": "perplexity", "at_most_worse": 1}}, TALK, "not by slice"),
        ({"slices": ["carrier"]}, TALK, "no column carrier"),
        ({}, TALK.model_copy(update={"prompt": Prompt(system="s", baseline="Answer.")}), r"lacks \{schema\}"),
    ],
)
def test_gates_that_could_never_be_computed_are_refused(changes: dict[str, Any], talk: ChatSpec, message: str) -> None:
    """What a metric is made of must be in the case: message by validate, and before anything is trained."""
    with pytest.raises(CaseError, match=message):
        check_language_evaluation(
            LanguageEvaluation.model_validate(STRICT | changes), talk, Pairs(sources=("mine",)), tuned=True
        )
    check_language_evaluation(
        LanguageEvaluation.model_validate(STRICT),
        talk if message != r"lacks \{schema\}" else TALK,
        Pairs(sources=("mine",)),
        tuned=True,
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"bounds": [{"metric": "token_f1", "at_least": 0.5}]}, "token_f1 needs pairs"),
        ({"bounds": [{"metric": "exact_match", "at_least": 0.5}]}, "exact_match needs pairs"),
        ({"champion_gate": {"loss": "missing_facts"}}, "missing_facts needs pairs"),
    ],
)
def test_without_pairs_only_what_needs_none(changes: dict[str, Any], message: str | None) -> None:
    """Bounds and losses that need a right answer are refused by name; the others are valid."""
    chat = ChatSpec(prompt=Prompt(system="s"), answer=Answer(format="text"), context=512)
    config = LanguageEvaluation.model_validate(FREE | changes)
    if message is None:
        check_language_evaluation(config, chat, Pairs(), tuned=False)
        return
    with pytest.raises(CaseError, match=message):
        check_language_evaluation(config, chat, Pairs(), tuned=False)
