"""How well predictions did by the outcomes that arrived, in a window and in its parts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tasks.monitor.estimate import estimate
from tasks.monitor.results import Part
from tasks.train.config import Target
from tasks.train.metrics import measure, metrics_of

if TYPE_CHECKING:
    import pandas as pd


def measure_performance(
    known: pd.DataFrame, reference: pd.DataFrame, target: Target, missing: list[str]
) -> dict[str, Any]:
    """Metrics and bias of the rows with an outcome, beside the hold-out's; what can't be computed is named."""
    now = _measured(known["outcome"], known["prediction"], target)
    for name in metrics_of(target.task):
        if name not in now:
            missing.append(f"{name} was not computed: {_why(known, target)}.")
    scale = _scale(reference, target)
    if not len(known):
        missing.append("Bias was not computed: no outcome has arrived.")
    elif not scale:
        missing.append("Bias was not computed: all outcomes of the hold-out are 0, so it is a share of nothing.")
    return {
        "metrics": now,
        "reference": _measured(reference[target.column], reference["prediction"], target),
        "expected": estimate(known, reference, target.column) if target.task == "classification" else {},
        "bias": _bias(known["outcome"], known["prediction"], scale),
        "bias_then": _bias(reference[target.column], reference["prediction"], scale),
    }


def measure_parts(
    known: pd.DataFrame,
    reference: pd.DataFrame,
    target: Target,
    metric: str,
    parts: Sequence[tuple[datetime, datetime]],
) -> tuple[Part, ...]:
    """The watched metric and the bias in each part of the window."""
    scale, made = _scale(reference, target), []
    for start, end in parts:
        some = known[(known["event_timestamp"] >= start) & (known["event_timestamp"] < end)]
        value = _measured(some["outcome"], some["prediction"], target).get(metric)
        expected = estimate(some, reference, target.column) if target.task == "classification" else {}
        bias = _bias(some["outcome"], some["prediction"], scale)
        made.append(Part(start=start, end=end, rows=len(some), value=value, expected=expected.get(metric), bias=bias))
    return tuple(made)


def _scale(reference: pd.DataFrame, target: Target) -> float:
    """What a bias is told in: 1, or for regression the hold-out's mean |outcome|."""
    return 1.0 if target.task == "classification" else float(reference[target.column].abs().mean())


def _measured(outcomes: pd.Series, predictions: pd.Series, target: Target) -> dict[str, float]:
    return measure(outcomes.to_numpy(float), predictions.to_numpy(float), target.task)


def _bias(outcomes: pd.Series, predictions: pd.Series, scale: float) -> float | None:
    return float((predictions - outcomes).mean()) / scale if len(outcomes) and scale else None


def _why(known: pd.DataFrame, target: Target) -> str:
    if known.empty:
        return "no outcome has arrived"
    return f"all {len(known):,} outcomes are the same" if target.task == "classification" else "it is not finite"
