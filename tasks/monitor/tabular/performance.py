"""How well predictions did by the outcomes that arrived, in a window and in its parts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tasks.monitor.results import Part
from tasks.monitor.tabular.labels_and_predictions import LabelsAndPredictions, errors_of, most_biased_class
from tasks.monitor.tabular.performance_estimate import estimate
from tasks.statistics.metric_catalog import metrics_of
from tasks.train.classes import Classes
from tasks.train.config import Target
from tasks.train.metrics import compute_metrics

if TYPE_CHECKING:
    import pandas as pd


def measure_performance(
    now: LabelsAndPredictions, then: LabelsAndPredictions, target: Target, classes: Classes, missing: list[str]
) -> dict[str, Any]:
    """Metrics and bias of the rows with an outcome, beside the hold-out's; what can't be computed is named."""
    metrics, worst = compute_metrics(*now, target.task), most_biased_class(now, classes)
    for name in metrics_of(target.task):
        if name not in metrics:
            missing.append(f"{name} was not computed: {_why(len(now[0]), target)}.")
    scale = _scale(then, target)
    if not len(now[0]):
        missing.append("Bias was not computed: no outcome has arrived.")
    elif not scale:
        missing.append("Bias was not computed: all outcomes of the hold-out are 0, so it is a share of nothing.")
    return {
        "metrics": metrics,
        "reference": compute_metrics(*then, target.task),
        "expected": estimate(now[1], then) if classes else {},
        "bias": _bias(now, worst, scale),
        "bias_then": _bias(then, worst, scale),
        "bias_class": classes[worst] if worst is not None and len(classes) > 2 else None,
    }


def measure_parts(
    now: LabelsAndPredictions,
    then: LabelsAndPredictions,
    times: pd.Series,
    target: Target,
    classes: Classes,
    metric: str,
    parts: Sequence[tuple[datetime, datetime]],
) -> tuple[Part, ...]:
    """The watched metric and the bias in each part of the window."""
    scale, worst, made = _scale(then, target), most_biased_class(now, classes), []
    for start, end in parts:
        some = ((times >= start) & (times < end)).to_numpy()
        side = now[0][some], now[1][some]
        value = compute_metrics(*side, target.task).get(metric)
        expected = estimate(side[1], then).get(metric) if classes else None
        bias = _bias(side, worst, scale)
        made.append(Part(start=start, end=end, rows=int(some.sum()), value=value, expected=expected, bias=bias))
    return tuple(made)


def _scale(then: LabelsAndPredictions, target: Target) -> float:
    """What a bias is told in: 1, or for regression the hold-out's mean |outcome|."""
    import numpy as np

    return 1.0 if target.task == "classification" else float(np.abs(then[0]).mean())


def _bias(side: LabelsAndPredictions, of: int | None, scale: float) -> float | None:
    return float(errors_of(side, of).mean()) / scale if len(side[0]) and scale else None


def _why(known: int, target: Target) -> str:
    if not known:
        return "no outcome has arrived"
    return f"all {known:,} outcomes are the same" if target.task == "classification" else "it is not finite"
