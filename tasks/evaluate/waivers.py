"""Waivers: a named person lets a failed gate pass, for a reason and until a day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from tasks.core.errors import CaseError
from tasks.evaluate.config import Evaluate, LanguageEvaluation, Waiver
from tasks.evaluate.results import Criterion

GUARDRAIL = "guardrail "  # criteria of guardrails begin so
OF_ANSWERS = (
    "prompt_tests",
    "champion_prompt_tests",
    "exact_match_above_few_shot",
    "constrained_schema_validity",
    "quantized_loss",
    "parity_logprob_difference",
    "counterfactual_changes",
)


def check_waivers(config: Evaluate | LanguageEvaluation, features: Sequence[str] = ()) -> None:
    """Raises: CaseError for a waiver of what is neither a feature nor a gate of the case."""
    gates = _gates(config)
    for name in config.waive:
        if name not in (*features, *gates) and not name.startswith(GUARDRAIL):
            raise CaseError(
                f"There is no feature or gate {name} to waive.",
                where="evaluate.waive",
                found=name,
                allowed=", ".join((*features, *gates)),
                todo="Name the column or the gate as the verdict does, or remove the line.",
            )


def split_waivers(waive: Mapping[str, Waiver]) -> tuple[dict[str, Waiver], list[Criterion]]:
    """The waivers that hold today, and a warning for each that has expired."""
    today = datetime.now(UTC).date()
    valid = {name: waiver for name, waiver in waive.items() if waiver.until >= today}
    return valid, [_expired(name, waiver) for name, waiver in waive.items() if name not in valid]


def waive_gates(criteria: Sequence[Criterion], waive: Mapping[str, Waiver]) -> list[Criterion]:
    """The criteria, those that failed and are waived by name as passed."""
    return [_waived(each, waive[each.name]) if _is_waivable(each) and each.name in waive else each for each in criteria]


def _is_waivable(criterion: Criterion) -> bool:
    return criterion.blocking and not criterion.passed


def _waived(criterion: Criterion, waiver: Waiver) -> Criterion:
    note = f"{criterion.note}; waived: {waiver}" if criterion.note else f"waived: {waiver}"
    return criterion.model_copy(update={"passed": True, "waiver": str(waiver), "note": note})


def _expired(name: str, waiver: Waiver) -> Criterion:
    return Criterion(
        name=f"waiver: {name}",
        observed=None,
        required="not expired",
        passed=False,
        note=f"the waiver by {waiver.by} ended with {waiver.until:%Y-%m-%d}: it waives nothing",
        blocking=False,
    )


def _gates(config: Evaluate | LanguageEvaluation) -> list[str]:
    """The names of the criteria that a case may waive."""
    gate = config.champion_gate
    names = [bound.metric for bound in config.bounds]
    names += [f"{config.slice_gate.metric}_by_{column}" for column in config.slices] if config.slice_gate else []
    names.append(f"champion_{gate.loss}")
    names += [f"champion_{gate.loss}_by_{column}" for column in config.slices] if gate.slices else []
    if isinstance(config, Evaluate):
        names.append(f"dummy_{gate.loss}")
        names += [f"fairness_{each.metric}" for each in config.fairness.gates] if config.fairness else []
        names += ["ms_per_row"] if config.ms_per_row is not None else []
        return names
    return [*names, *OF_ANSWERS]
