"""The known limits of a release, as sentences: from the slices that did worst, warnings, waivers and missing tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tasks.govern.evidence import Evidence, missed_candidates
from tasks.statistics.metric_catalog import HIGHER_IS_BETTER

WORST = 3  # slices that are named
RANKED = ("auc", "rmse", "exact_match", "accuracy")  # the first that was measured ranks the slices


def limits(evidence: Evidence) -> list[str]:
    """Sentences without their full stop."""
    return [*_slices(evidence), *_criteria(evidence), *_groups(evidence), *_tests(evidence), *_code(evidence)]


def _slices(evidence: Evidence) -> Iterator[str]:
    metrics = evidence.recorded.get("metrics", {})
    metric = next((name for name in RANKED if name in metrics.get("overall", {})), None)
    if metric is None:
        return
    ranked = [
        (each[metric], f"{column} {value} ({each['rows']:,} rows)")
        for column, values in metrics.get("by_slice", {}).items()
        for value, each in values.items()
        if metric in each
    ]
    ranked.sort(reverse=metric not in HIGHER_IS_BETTER)
    named = ", ".join(f"{name}: {value:.3f}" for value, name in ranked[:WORST])
    yield f"Worst slices by {metric}: {named}" if named else "No slices were measured"


def _criteria(evidence: Evidence) -> Iterator[str]:
    """Waivers and warnings, those of fairness and of guardrails included."""
    observed: dict[str, Any] = evidence.recorded.get("observed", {})
    for each in evidence.sealed["verdict"]["criteria"]:
        note = observed.get(each["name"], {}).get("note", "")
        if each.get("waiver"):
            yield f"Waived: {each['name']}, because {each['waiver']}"
        elif not each["passed"]:
            yield f"Warning: {each['name']}: {note}"


def _groups(evidence: Evidence) -> Iterator[str]:
    """The largest difference between groups, where they were compared."""
    tables = evidence.recorded.get("metrics", {}).get("fairness", {})
    if not tables:
        yield "No groups of people were compared"
    for column, groups in tables.items():
        rates = {group: each["selection_rate"] for group, each in groups.items() if "selection_rate" in each}
        if len(rates) > 1:
            low, high = min(rates, key=rates.__getitem__), max(rates, key=rates.__getitem__)
            yield (
                f"By {column}, the selection rate ranges from {rates[low]:.3f} ({low}) to {rates[high]:.3f} ({high})"
            )


def _tests(evidence: Evidence) -> Iterator[str]:
    selftest = evidence.latest("gates.selftest")
    if selftest is None:
        yield "Missing: the gates were not tested with known-bad candidates (driftline gates selftest)"
    elif missed := missed_candidates(selftest):
        yield f"Warning: the gates would release known-bad candidates: {', '.join(missed)}"


def _code(evidence: Evidence) -> Iterator[str]:
    if evidence.sealed["dirty"]:
        yield "The code had uncommitted changes: the commit alone does not rebuild this release"
