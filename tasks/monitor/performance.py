"""How well predictions did by the outcomes that arrived: in the window and its parts, and what chance may do to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from tasks.evaluate.metrics import HIGHER_IS_BETTER
from tasks.monitor.chance import cells_of, chance, counts_of, means_of
from tasks.monitor.results import Part
from tasks.train.config import Target
from tasks.train.metrics import losses, measure, metrics_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SCORES = 50  # cells of predictions, or of errors
GROUPS = 10  # of cells, that calibration is told by
Statistic: TypeAlias = "Callable[[np.ndarray], np.ndarray]"  # of counts (deals, cells)


def measure_performance(
    known: pd.DataFrame, reference: pd.DataFrame, target: Target, missing: list[str]
) -> dict[str, Any]:
    """Metrics and bias of the rows with an outcome, beside the hold-out's; what can't be computed is named."""
    now, then = _measured(known["outcome"], known["prediction"], target), measured_then(reference, target)
    for name in metrics_of(target.task):
        if name not in now:
            missing.append(f"{name} was not computed: {_why(known, target)}.")
    scale = scale_of(reference, target)
    if not len(known):
        missing.append("Bias was not computed: no outcome has arrived.")
    elif not scale:
        missing.append("Bias was not computed: all outcomes of the hold-out are 0, so it is a share of nothing.")
    bias_then = _bias(reference[target.column], reference["prediction"], scale)
    return {
        "metrics": now,
        "reference": then,
        "bias": _bias(known["outcome"], known["prediction"], scale),
        "bias_then": bias_then,
    }


def measure_parts(
    known: pd.DataFrame,
    reference: pd.DataFrame,
    target: Target,
    metric: str,
    parts: Sequence[tuple[datetime, datetime]],
) -> tuple[Part, ...]:
    """The watched metric and the bias in each part of the window."""
    scale, made = scale_of(reference, target), []
    for start, end in parts:
        some = known[(known["event_timestamp"] >= start) & (known["event_timestamp"] < end)]
        value = _measured(some["outcome"], some["prediction"], target).get(metric)
        bias = _bias(some["outcome"], some["prediction"], scale)
        made.append(Part(start=start, end=end, rows=len(some), value=value, bias=bias))
    return tuple(made)


def performance_chances(
    known: pd.DataFrame, reference: pd.DataFrame, target: Target, metric: str
) -> dict[str, float | None]:
    """The p-values of the watched metric having become worse, and of the bias having changed."""
    import numpy as np

    sides = [
        (side[column].to_numpy(float), side["prediction"].to_numpy(float))
        for side, column in ((reference, target.column), (known, "outcome"))
    ]
    sides = [(y[np.isfinite(y) & np.isfinite(p)], p[np.isfinite(y) & np.isfinite(p)]) for y, p in sides]
    if not all(len(y) for y, _ in sides):
        return {}
    cells = _classes(sides) if target.task == "classification" else _errors(sides)
    y, p = (np.concatenate(values) for values in zip(*sides, strict=True))
    many, of_all = 2 * SCORES, np.concatenate(cells)
    counts = counts_of(cells, many)
    worse = -1.0 if metric in HIGHER_IS_BETTER else 1.0
    value = _statistic(metric, of_all, y, p, target.task)
    off = _mean(means_of(of_all, p - y, many))
    return {
        "performance": chance(counts, lambda a, b: worse * (value(b) - value(a))),
        "bias": chance(counts, lambda a, b: abs(off(b) - off(a))),
    }


def measured_then(reference: pd.DataFrame, target: Target) -> dict[str, float]:
    return _measured(reference[target.column], reference["prediction"], target)


def scale_of(reference: pd.DataFrame, target: Target) -> float:
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


def _classes(sides: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """A cell for each quantile of the predictions and each outcome, lowest predictions first."""
    scores = cells_of(*(p for _, p in sides), cells=SCORES)
    return [2 * score + (y > 0.5).astype(int) for score, (y, _) in zip(scores, sides, strict=True)]


def _errors(sides: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """A cell for each quantile of the errors."""
    return list(cells_of(*(p - y for y, p in sides), cells=2 * SCORES))


def _statistic(metric: str, cells: np.ndarray, y: np.ndarray, p: np.ndarray, task: str) -> Statistic:
    """A metric computed from how many rows are in each cell, each of which stands for its mean."""
    import numpy as np

    def mean_by(values: np.ndarray) -> np.ndarray:
        return means_of(cells, values, 2 * SCORES)

    if metric in ("brier", "log_loss"):
        return _mean(mean_by(losses(metric, y, p)))  # type: ignore[arg-type]
    if metric == "mae":
        return _mean(mean_by(np.abs(y - p)))
    if metric == "rmse":
        squared = _mean(mean_by((y - p) ** 2))
        return lambda counts: np.sqrt(squared(counts))
    if metric == "r2":
        squared, mean, square = (_mean(mean_by(values)) for values in ((y - p) ** 2, y, y**2))
        return lambda counts: 1 - squared(counts) / (square(counts) - mean(counts) ** 2)
    if metric == "calibration_error":
        off = mean_by(p - y)
        return lambda counts: (
            np.abs((counts * off).reshape(len(counts), GROUPS, -1).sum(axis=2)).sum(axis=1) / counts.sum(axis=1)
        )
    return ranking(metric)


def ranking(metric: str) -> Statistic:
    """auc or average_precision from counts in cells that alternate between no and yes, lowest predictions first."""
    import numpy as np

    def area(counts: np.ndarray) -> np.ndarray:
        no, yes = counts[:, ::2], counts[:, 1::2]
        below = np.cumsum(no, axis=1) - no / 2
        return (yes * below).sum(axis=1) / (yes.sum(axis=1) * no.sum(axis=1))

    def precision(counts: np.ndarray) -> np.ndarray:
        no, yes = counts[:, ::2][:, ::-1], counts[:, 1::2][:, ::-1]
        hits, all_of_them = np.cumsum(yes, axis=1), np.cumsum(yes + no, axis=1)
        return (yes * hits / np.maximum(all_of_them, 1)).sum(axis=1) / yes.sum(axis=1)

    return area if metric == "auc" else precision


def _mean(values: np.ndarray) -> Statistic:
    return lambda counts: counts @ values / counts.sum(axis=1)
