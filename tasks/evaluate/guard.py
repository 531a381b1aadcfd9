"""The bounds of a case's guardrails as criteria of its verdict."""

from __future__ import annotations

from collections.abc import Iterable

from tasks.core.places import Places
from tasks.data.results import EmbedderFiles
from tasks.evaluate.results import Criterion
from tasks.guard.files import GuardSpec, trained_folder
from tasks.guard.trial import GuardPlaces, RuleTrial, Share, try_rules


def measure_guardrails(spec: GuardSpec, places: Places, embedder: EmbedderFiles | None) -> tuple[Criterion, ...]:
    """Try the rules that have bounds: the criteria of what they reached."""
    if spec.guardrails.is_empty:
        return ()
    model = (embedder.folder, embedder.tokenizer) if embedder else None
    guard_places = GuardPlaces(trained_folder(places.state), places.data, model)
    return guard_criteria(try_rules(spec.guardrails, guard_places, only_bounded=True))


def guard_criteria(trials: Iterable[RuleTrial]) -> tuple[Criterion, ...]:
    """The catch rate and the false-alarm rate of the rules that bound them."""
    return tuple(criterion for trial in trials for criterion in _criteria(trial))


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
