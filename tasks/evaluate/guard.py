"""The bounds of a case's guardrails as criteria of its verdict."""

from __future__ import annotations

from collections.abc import Iterable

from tasks.core.config import digest_of
from tasks.core.places import Places
from tasks.data.results import EmbedderFiles
from tasks.evaluate.criteria import decide
from tasks.evaluate.results import Criterion, Verdict
from tasks.guard.files import GuardSpec, trained_folder
from tasks.guard.trial import GuardPlaces, RuleTrial, Share, try_rules


def evaluate_guardrails(verdict: Verdict, spec: GuardSpec, places: Places, embedder: EmbedderFiles | None) -> Verdict:
    """Try the rules that have bounds, and add what they reached to the verdict."""
    if spec.guardrails.is_empty:
        return verdict
    model = (embedder.folder, embedder.tokenizer) if embedder else None
    guard_places = GuardPlaces(trained_folder(places.state), places.data, model)
    return with_guard_criteria(verdict, try_rules(spec.guardrails, guard_places, only_bounded=True))


def with_guard_criteria(verdict: Verdict, trials: Iterable[RuleTrial]) -> Verdict:
    """A verdict that also depends on the catch rate and the false-alarm rate of the rules that bound them."""
    criteria = [criterion for trial in trials for criterion in _criteria(trial)]
    if not criteria:
        return verdict
    every = (*verdict.criteria, *criteria)
    decision = decide(every)
    repeatable = [each.model_dump(mode="json", exclude={"repeatable"}) for each in every if each.repeatable]
    digest = digest_of({"decision": decision, "criteria": repeatable})
    return verdict.model_copy(update={"criteria": every, "decision": decision, "digest": digest})


def _criteria(trial: RuleTrial) -> list[Criterion]:
    name, criteria = f"guardrail {trial.stage}.{trial.rule}", []
    if (least := trial.catch_rate) is not None:
        passed = trial.caught.value >= least
        criteria.append(_criterion(f"{name} catches", trial.caught, f">= {least:g}", trial, passed))
    if (most := trial.false_alarm_rate) is not None:
        passed = trial.false_alarms.value <= most
        criteria.append(_criterion(f"{name} false alarms", trial.false_alarms, f"<= {most:g}", trial, passed))
    return criteria


def _criterion(name: str, share: Share, required: str, trial: RuleTrial, passed: bool) -> Criterion:
    return Criterion(
        name=name,
        observed=share.value,
        required=required,
        passed=passed and share.of > 0,
        note=f"{share}, on {trial.inputs}",
    )
