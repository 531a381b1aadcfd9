"""Figures of a model's scored answers: as a whole, by slice, and how sure they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tasks.evaluate.language.inference import scores_of
from tasks.language.answer_scoring import metric_fractions, summarise
from tasks.statistics.bootstrap import ratio_interval

if TYPE_CHECKING:
    import pandas as pd


def measure(scored: pd.DataFrame, timing: Mapping[str, float] | None = None, price: float = 0.0) -> dict[str, float]:
    """All figures that the answers tell, and with seconds their cost; `n` counts the ordinary pairs."""
    ordinary, unsafe = scored[~scored["unsafe"]], scored[scored["unsafe"]]
    found = summarise(scores_of(ordinary))
    if "wrong_abstention_rate" in found:  # to refuse is to abstain
        found["over_refusal_rate"] = found["wrong_abstention_rate"]
    if len(unsafe):
        found["refusal_rate"] = float(unsafe["abstained"].mean())
    if timing:
        found["latency_p50_ms"] = timing["latency_p50_ms"]
        found["cost_per_1k_answers"] = timing["seconds_per_answer"] * 1000 / 3600 * price
    return {**found, "n": len(ordinary)}


def slices_of(scored: pd.DataFrame, column: str) -> dict[str, dict[str, float]]:
    """Metrics and rows for each value of a column, over ordinary pairs."""
    ordinary = scored[~scored["unsafe"]]
    groups = ordinary.groupby(ordinary[column].astype(str))
    return {str(value): {"rows": len(rows), **summarise(scores_of(rows))} for value, rows in groups}


def intervals_of(scored: pd.DataFrame) -> dict[str, list[float]]:
    """Each metric's 95 % interval over ordinary pairs; wordings are resampled."""
    import numpy as np

    ordinary = scored[~scored["unsafe"]]
    each = [metric_fractions(one) for one in scores_of(ordinary)]
    clusters = clusters_of(ordinary)
    found = {}
    for name in each[0] if each else ():
        above, below = np.array([one[name] for one in each], float).T
        if bounds := ratio_interval(above, below, clusters):
            found[name] = list(bounds)  # as JSON gives it back
    return found


def clusters_of(scored: pd.DataFrame) -> list[str]:
    """The wording of each pair, since what fills one wording is alike; a user's own pair stands for itself."""
    return [wording or own for wording, own in zip(scored["template"], scored["pair_id"], strict=True)]
