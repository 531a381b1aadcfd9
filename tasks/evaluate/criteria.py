"""The gates of a case: each returns a criterion with the observed and the required value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from tasks.evaluate.config import DAY, Bound, ChampionGate, SliceGate
from tasks.evaluate.results import Criterion
from tasks.statistics.bootstrap import MIN_CLUSTERS, PairedDifference, paired_bootstrap, ratio_interval
from tasks.statistics.metric_catalog import worse_by

if TYPE_CHECKING:
    import numpy as np

Decision = Literal["promote", "reject", "insufficient evidence"]
CLUSTERS = {"": "wordings", "wording": "wordings", "document": "documents", DAY: "days"}
Tables = Mapping[str, Mapping[str, float]]


def decide(criteria: Sequence[Criterion]) -> Decision:
    """Promote when all pass; reject when a computed one fails; otherwise the evidence is insufficient.

    Warnings don't count. A failure that more rows could change is insufficient evidence, too.
    """
    blocking = [criterion for criterion in criteria if criterion.blocking]
    failed = [criterion for criterion in blocking if not criterion.passed]
    if not failed and blocking:
        return "promote"
    certain = any(criterion.observed is not None and criterion.conclusive for criterion in failed)
    return "reject" if certain else "insufficient evidence"


def bound_criterion(bound: Bound, overall: Mapping[str, float]) -> Criterion:
    observed = overall.get(bound.metric)
    if bound.at_least is not None:
        required, passed = f">= {bound.at_least:g}", observed is not None and observed >= bound.at_least
    else:
        required, passed = f"<= {bound.at_most:g}", observed is not None and observed <= (bound.at_most or 0.0)
    note = "" if observed is not None else "can't be computed on this hold-out"
    return Criterion(name=bound.metric, observed=observed, required=required, passed=passed, note=note)


def slice_criterion(gate: SliceGate, column: str, overall: Mapping[str, float], slices: Tables | None) -> Criterion:
    """How much worse the worst slice with enough rows is than the whole."""
    name, required = f"{gate.metric}_by_{column}", f"<= {gate.at_most_worse:g} worse than the whole"

    def unknown(note: str) -> Criterion:
        return Criterion(name=name, observed=None, required=required, passed=False, note=note)

    whole = overall.get(gate.metric)
    if slices is None:
        return unknown(f"the frame has no column {column}")
    if whole is None:
        return unknown(f"{gate.metric} can't be computed on this hold-out")
    big = {value: metrics for value, metrics in slices.items() if metrics["rows"] >= gate.min_rows}
    if not big:
        return unknown(f"no slice has {gate.min_rows} rows")
    gaps = {value: worse_by(gate.metric, m[gate.metric], whole) for value, m in big.items() if gate.metric in m}
    unmeasured = [value for value in big if value not in gaps]
    worst = max(gaps, key=lambda value: gaps[value], default=None)
    if worst is not None and (gaps[worst] > gate.at_most_worse or not unmeasured):
        note = f"worst: {worst}, {gate.metric} {big[worst][gate.metric]:.4g} of {big[worst]['rows']:,} rows"
        passed = gaps[worst] <= gate.at_most_worse
        return Criterion(name=name, observed=gaps[worst], required=required, passed=passed, note=note)
    return unknown(f"{gate.metric} can't be computed for {', '.join(unmeasured)}")


def losses_criterion(
    gate: ChampionGate,
    challenger: np.ndarray,
    champion: np.ndarray | None,
    problem: str = "",
    clusters: Sequence[Any] | None = None,
) -> Criterion:
    """Whether the challenger is shown to be not worse, by the losses of the same examples.

    `problem` is why the champion's losses are missing; `clusters` groups examples that are alike.
    """
    name, required = f"champion_{gate.loss}", _at_most(gate.limit)

    def unknown(note: str, passed: bool = False) -> Criterion:
        return Criterion(name=name, observed=None, required=required, passed=passed, note=note)

    if champion is None:
        return unknown(problem or "no champion yet", passed=not problem)
    if len(challenger) < gate.min_rows:
        return unknown(f"only {len(challenger):,} examples, {gate.min_rows:,} are needed")
    if clusters is not None and len(set(clusters)) < MIN_CLUSTERS:
        what = CLUSTERS.get(gate.clusters, f"values of {gate.clusters}")
        return unknown(f"only {len(set(clusters))} different {what}, {MIN_CLUSTERS} are needed")
    result = paired_bootstrap(
        challenger, champion, confidence=gate.confidence, resamples=gate.resamples, clusters=clusters
    )
    return difference_criterion(name, result, gate.limit)


def difference_criterion(name: str, result: PairedDifference, limit: float) -> Criterion:
    """A shown difference passes or fails; one that is not shown is no failure, since more examples could show it."""
    outcome = result.outcome(limit)
    return Criterion(
        name=name,
        observed=result.high,
        required=_at_most(limit),
        passed=outcome == "not worse",
        note=result.explain(limit),
        conclusive=outcome != "not shown",
    )


def _at_most(limit: float) -> str:
    return f"<= {limit:g} worse than the champion" if limit >= 0 else f">= {-limit:g} better than the champion"


def paired_criterion(
    name: str,
    differences: np.ndarray,
    clusters: Sequence[Any],
    at_least: float | None = None,
    at_most: float | None = None,
) -> Criterion:
    """The mean difference of two models on the same examples; the note has its interval."""
    import numpy as np

    required = f">= {at_least:g}" if at_least is not None else f"<= {at_most:g}"
    bounds = ratio_interval(differences, np.ones(len(differences)), clusters)
    if bounds is None:
        return Criterion(name=name, observed=None, required=required, passed=False, note="no example has both")
    observed = float(np.mean(differences))
    passed = observed >= at_least if at_least is not None else observed <= (at_most or 0.0)
    note = f"95 % interval {bounds[0]:+.3f} to {bounds[1]:+.3f}, of {len(differences):,} examples"
    return Criterion(name=name, observed=observed, required=required, passed=passed, note=note)


def class_rows_criterion(rows: Mapping[str, int], required: int) -> Criterion:
    """A warning when the hold-out has too few rows of a class to say much about it."""
    few = [f"{name} ({count:,})" for name, count in rows.items() if count < required]
    return Criterion(
        name="rows_by_class",
        observed=min(rows.values()),
        required=f">= {required} hold-out rows",
        passed=not few,
        note=f"too few of {', '.join(few)}: what is measured of them is chance" if few else "of the rarest class",
        blocking=False,
    )


def speed_criterion(limit: float, observed: float) -> Criterion:
    """The only timing among the criteria: it is not repeatable, so the digest leaves it out."""
    return Criterion(
        name="ms_per_row",
        observed=observed,
        required=f"<= {limit:g}",
        passed=observed <= limit,
        note="one row at a time, median",
        repeatable=False,
    )


def thresholds_criterion(columns: Sequence[str], basis: str) -> Criterion:
    """No gate: it shows in each verdict and card that people are decided on by their group, and why that is lawful."""
    return Criterion(
        name="thresholds_by_group",
        observed=None,
        required="a lawful basis",
        passed=True,
        note=f"decides by {', '.join(columns)}: {basis}",
        blocking=False,
    )


def batch_invariance_criterion(difference: float) -> Criterion:
    """A service that scores a single row must return the score of the batch."""
    return Criterion(
        name="alone_as_in_batch",
        observed=difference,
        required="<= 0 difference",
        passed=difference <= 0,
        note="largest difference between a row's answer alone and in the batch",
    )
