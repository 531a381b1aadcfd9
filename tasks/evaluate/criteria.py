"""The gates of a case, one by one: each gives a criterion with what was observed and what is required."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from tasks.evaluate.compare import compare
from tasks.evaluate.config import Bound, ChampionGate, SliceGate
from tasks.evaluate.metrics import per_example_loss, worse_by
from tasks.evaluate.results import Criterion

if TYPE_CHECKING:
    import numpy as np

Decision = Literal["promote", "reject", "insufficient evidence"]
Tables = Mapping[str, Mapping[str, float]]


def decide(criteria: Sequence[Criterion]) -> Decision:
    """Promote when all pass; reject when one that was computed fails; else the evidence does not suffice."""
    failed = [criterion for criterion in criteria if not criterion.passed]
    if not failed and criteria:
        return "promote"
    return "reject" if any(criterion.observed is not None for criterion in failed) else "insufficient evidence"


def bound_criterion(bound: Bound, overall: Mapping[str, float]) -> Criterion:
    observed = overall.get(bound.metric)
    if bound.at_least is not None:
        required, passed = f">= {bound.at_least:g}", observed is not None and observed >= bound.at_least
    else:
        required, passed = f"<= {bound.at_most:g}", observed is not None and observed <= (bound.at_most or 0.0)
    note = "" if observed is not None else "can't be computed on this hold-out"
    return Criterion(name=bound.metric, observed=observed, required=required, passed=passed, note=note)


def slice_criterion(gate: SliceGate, column: str, overall: Mapping[str, float], slices: Tables | None) -> Criterion:
    """How much worse than the whole the worst slice with enough rows is."""
    name, required = f"{gate.metric}_by_{column}", f"<= {gate.at_most_worse:g} worse than the whole"

    def unknown(note: str) -> Criterion:
        return Criterion(name=name, observed=None, required=required, passed=False, note=note)

    whole = overall.get(gate.metric)
    if slices is None:
        return unknown(f"the frame has no column {column}")
    if whole is None:
        return unknown(f"{gate.metric} can't be computed on this hold-out")
    big = {value: found for value, found in slices.items() if found["rows"] >= gate.min_rows}
    if not big:
        return unknown(f"no slice has {gate.min_rows} rows")
    gaps = {value: worse_by(gate.metric, f[gate.metric], whole) for value, f in big.items() if gate.metric in f}
    blind = [value for value in big if value not in gaps]
    worst = max(gaps, key=lambda value: gaps[value], default=None)
    if worst is not None and (gaps[worst] > gate.at_most_worse or not blind):
        note = f"worst: {worst}, {gate.metric} {big[worst][gate.metric]:.4g} of {big[worst]['rows']:,} rows"
        passed = gaps[worst] <= gate.at_most_worse
        return Criterion(name=name, observed=gaps[worst], required=required, passed=passed, note=note)
    return unknown(f"{gate.metric} can't be computed for {', '.join(blind)}")


def champion_criterion(
    gate: ChampionGate,
    target: np.ndarray,
    prediction: np.ndarray,
    champion: np.ndarray | None,
    problem: str = "",
    seed: int = 0,
) -> Criterion:
    """Whether the challenger is shown to be not worse; `problem` says why the champion's predictions are not there."""
    name, required = f"champion_{gate.loss}", f"<= {gate.margin:g} worse than the champion"
    if champion is None:
        passed = not problem
        return Criterion(name=name, observed=None, required=required, passed=passed, note=problem or "no champion yet")
    if len(target) < gate.min_rows:
        note = f"only {len(target):,} examples, {gate.min_rows:,} are needed"
        return Criterion(name=name, observed=None, required=required, passed=False, note=note)
    found = compare(
        per_example_loss(gate.loss, target, prediction),
        per_example_loss(gate.loss, target, champion),
        gate.confidence,
        gate.resamples,
        seed,
    )
    reading = (
        "not worse"
        if found.shows_not_worse(gate.margin)
        else "worse"
        if found.shows_worse(gate.margin)
        else "not shown"
    )
    note = (
        f"{reading}: mean difference {found.difference:+.4g}, with {gate.confidence:.0%} confidence "
        f"at most {found.high:+.4g} and at least {found.low:+.4g}, of {found.rows:,} examples"
    )
    passed = found.shows_not_worse(gate.margin)
    return Criterion(name=name, observed=found.high, required=required, passed=passed, note=note)


def speed_criterion(limit: float, observed: float) -> Criterion:
    """The one timing among the criteria: not repeatable, so no digest holds it."""
    return Criterion(
        name="ms_per_row",
        observed=observed,
        required=f"<= {limit:g}",
        passed=observed <= limit,
        note="one row at a time, median",
        repeatable=False,
    )


def alone_criterion(difference: float) -> Criterion:
    """A service that answers one row must say what the offline scores said."""
    return Criterion(
        name="alone_as_in_batch",
        observed=difference,
        required="<= 0 difference",
        passed=difference <= 0,
        note="largest difference between a row's answer alone and in the batch",
    )
