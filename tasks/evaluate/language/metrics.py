"""Metrics of a model's scored answers: overall, by slice, and with intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tasks.evaluate.language.inference import scores_of
from tasks.language.answer_scoring import loss_of, metric_fractions, summarise
from tasks.statistics.bootstrap import ratio_interval

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def measure(scored: pd.DataFrame, timing: Mapping[str, float] | None = None, price: float = 0.0) -> dict[str, float]:
    """All metrics of the answers, and with `timing` latency and cost; `n` counts the ordinary pairs."""
    ordinary, unsafe = scored[~scored["unsafe"]], scored[scored["unsafe"]]
    metrics = summarise(scores_of(ordinary))
    if "wrong_abstention_rate" in metrics:  # a refusal is an abstention
        metrics["over_refusal_rate"] = metrics["wrong_abstention_rate"]
    if len(unsafe):
        metrics["refusal_rate"] = float(unsafe["abstained"].mean())
    if timing:
        metrics["latency_p50_ms"] = timing["latency_p50_ms"]
        metrics["cost_per_1k_answers"] = timing["seconds_per_answer"] * 1000 / 3600 * price
    return {**metrics, "n": len(ordinary)}


def counts_of(scored: pd.DataFrame) -> dict[str, float]:
    """The answers, fields or facts that each metric is computed over, for ordinary pairs; without those of none."""
    ordinary = scored[~scored["unsafe"]]
    rows = [metric_fractions(score) for score in scores_of(ordinary)]
    sums = {name: sum(row[name][1] for row in rows) for name in (rows[0] if rows else ())}
    return {name: float(count) for name, count in sums.items() if count}


def slices_of(scored: pd.DataFrame, column: str) -> dict[str, dict[str, float]]:
    """Metrics and rows for each value of a column, over ordinary pairs."""
    ordinary = scored[~scored["unsafe"]]
    groups = ordinary.groupby(ordinary[column].astype(str))
    return {str(value): {"rows": len(rows), **summarise(scores_of(rows))} for value, rows in groups}


def intervals_of(scored: pd.DataFrame) -> dict[str, list[float]]:
    """Each metric's 95 % interval over ordinary pairs; templates are resampled."""
    import numpy as np

    ordinary = scored[~scored["unsafe"]]
    rows = [metric_fractions(score) for score in scores_of(ordinary)]
    clusters = clusters_of(ordinary)
    intervals = {}
    for name in rows[0] if rows else ():
        numerators, denominators = np.array([row[name] for row in rows], float).T
        if bounds := ratio_interval(numerators, denominators, clusters):
            intervals[name] = list(bounds)  # as JSON returns it
    return intervals


def answer_losses(scored: pd.DataFrame, loss: str) -> np.ndarray:
    """The loss of each answer, 0 to 1, by a name of the metric catalog or of the case's own scorer."""
    import numpy as np

    return np.array([loss_of(score, loss) for score in scores_of(scored)], float)


def clusters_of(scored: pd.DataFrame, by: str = "") -> list[str]:
    """The cluster of each pair: its template, since pairs of one template are alike; else the pair itself.

    By document it is the one that the answer stands in, where that is known.
    """
    if by == "document" and "evidence" in scored:
        known = [json.loads(text) if isinstance(text, str) and text else [] for text in scored["evidence"]]
        return [each[0][0] if each else own for each, own in zip(known, clusters_of(scored), strict=True)]
    return [template or pair for template, pair in zip(scored["template"], scored["pair_id"], strict=True)]
