"""Promise: a failed gate passes only by a waiver with reason, person and last day; an expired one waives nothing."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from pydantic import ValidationError

from tasks.core.errors import CaseError
from tasks.evaluate.config import Evaluate, LanguageEvaluation, Waiver
from tasks.evaluate.criteria import decide
from tasks.evaluate.results import Criterion
from tasks.evaluate.waivers import check_waivers, split_waivers, waive_gates

FAILED = Criterion(name="auc", observed=0.6, required=">= 0.7", passed=False)
PASSED = Criterion(name="brier", observed=0.1, required="<= 0.2", passed=True)
GATES = {"bounds": [{"metric": "auc", "at_least": 0.7}], "champion_gate": {"loss": "brier"}}
ANSWERS = {"bounds": [{"metric": "exact_match", "at_least": 0.7}], "champion_gate": {"loss": "inexact"}}


def today() -> date:
    return datetime.now(UTC).date()  # a run of all tests may go over midnight


def waiver(days: int = 0) -> Waiver:
    return Waiver(reason="a pilot with 20 clients", by="Ann Lee", until=today() + timedelta(days=days))


def test_a_waived_gate_passes_and_says_by_whom() -> None:
    """Until its last day included; what passed already is not waived."""
    valid, expired = split_waivers({"auc": waiver(), "brier": waiver()})
    first, second = waive_gates([FAILED, PASSED], valid)
    assert decide([first, second]) == "promote"
    assert first.waiver == f"a pilot with 20 clients (Ann Lee, until {today()})"
    assert (second, expired) == (PASSED, [])


def test_an_expired_waiver_waives_nothing() -> None:
    valid, expired = split_waivers({"auc": waiver(days=-1)})
    criteria = [*waive_gates([FAILED], valid), *expired]
    assert decide(criteria) == "reject"
    assert criteria[1].name == "waiver: auc"
    assert not criteria[1].blocking
    assert "by Ann Lee ended with" in criteria[1].note


@pytest.mark.parametrize("missing", ["reason", "by", "until"])
def test_reason_person_and_last_day_are_needed(missing: str) -> None:
    whole = {"reason": "a pilot", "by": "Ann Lee", "until": "2100-01-01"}
    with pytest.raises(ValidationError, match=missing):
        Waiver.model_validate({name: value for name, value in whole.items() if name != missing})
    with pytest.raises(ValidationError, match="needs a name and a last day"):
        Waiver.model_validate("a pilot")


def test_a_waiver_names_a_gate_or_a_feature() -> None:
    own = {"auc": waiver(), "age": waiver(), "champion_brier": waiver()}
    check_waivers(Evaluate.model_validate({**GATES, "waive": own}), ["age"])
    with pytest.raises(CaseError, match="no feature or gate auk to waive"):
        check_waivers(Evaluate.model_validate({**GATES, "waive": {"auk": waiver()}}), ["age"])
    answers = {"exact_match": waiver(), "prompt_tests": waiver(), "guardrail input.secrets catches": waiver()}
    check_waivers(LanguageEvaluation.model_validate({**ANSWERS, "waive": answers}))
    with pytest.raises(CaseError, match="no feature or gate auc to waive"):
        check_waivers(LanguageEvaluation.model_validate({**ANSWERS, "waive": {"auc": waiver()}}))
