"""Metrics of predictions; one that can't be computed is left out.

The evaluate package builds its tables on them. Training logs them too, and a package imports earlier ones only.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from tasks.statistics.metric_catalog import LossName
from tasks.train.classes import predicted_classes

if TYPE_CHECKING:
    import numpy as np

BINS = 10


def compute_metrics(
    target: np.ndarray, prediction: np.ndarray, task: Literal["classification", "regression"]
) -> dict[str, float]:
    """Each metric that fits the task; one that can't be computed (no rows, one class) is left out.

    Rows without a target or a prediction don't count. Of a classification the target is the number of a class, and the
    prediction the probability of the second of two, or of shape (rows, classes).
    """
    import numpy as np

    y = np.asarray(target, float)
    p = np.asarray(prediction, float)
    known = mask_known(y, p)
    if not known.all():
        y, p = y[known], p[known]
    if not len(y):
        return {}
    metrics = _classification(y, p) if task == "classification" else _regression(y, p)
    return {name: float(value) for name, value in metrics.items() if np.isfinite(value)}


def mask_known(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Which rows have a target and a prediction."""
    import numpy as np

    return np.isfinite(y) & (np.isfinite(p) if p.ndim == 1 else np.isfinite(p).all(axis=1))


def add_other_class(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn UNKNOWN_CLASS into a class of probability 0, so that such a row counts as wrong."""
    import numpy as np

    unknown = y < 0
    if not unknown.any():
        return y, p
    if p.ndim == 1:
        return np.where(unknown, 1.0, y), np.where(unknown, 0.0, p)
    return np.where(unknown, p.shape[1], y), np.column_stack([p, np.zeros(len(p))])


def losses(loss: LossName, target: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The loss of each example."""
    import numpy as np

    y = np.asarray(target, float)
    p = np.asarray(prediction, float)
    if loss in ("brier", "log_loss"):
        y, p = add_other_class(y, p)
    if p.ndim == 2:
        classes = np.arange(p.shape[1])
        if loss == "brier":
            return ((p - (y[:, None] == classes)) ** 2).sum(axis=1)
        y, p = np.ones(len(y)), p[np.arange(len(y)), y.astype(int)]
    if loss in ("brier", "squared_error"):
        return (y - p) ** 2
    if loss == "absolute_error":
        return np.abs(y - p)
    tiny = np.finfo(float).eps  # a certain and wrong prediction costs 36, not infinity
    return -np.log(np.clip(np.where(y > 0.5, p, 1 - p), tiny, 1))


def calibration_bins(target: np.ndarray, prediction: np.ndarray, bins: int = BINS) -> list[tuple[float, float, int]]:
    """(mean prediction, mean target, rows) for bins of equal count, in order of prediction.

    Equal predictions may fall in two bins when they straddle a border; within them the order is the rows' own.
    """
    import numpy as np

    order = np.argsort(prediction, kind="stable")
    y, p = np.asarray(target, float)[order], np.asarray(prediction, float)[order]
    borders = np.linspace(0, len(p), min(bins, len(p)) + 1).astype(int)
    return [(float(p[a:b].mean()), float(y[a:b].mean()), int(b - a)) for a, b in pairwise(borders)]


def _classification(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """For three classes or more, a metric of one class is the mean over all, each against the rest."""
    import numpy as np

    y, p = add_other_class(y, p)
    sides = [(y, p)] if p.ndim == 1 else [((y == k).astype(float), p[:, k]) for k in range(p.shape[1])]
    each = [_one_class_metrics(*side) for side in sides]
    metrics = {name: float(losses(name, y, p).mean()) for name in ("brier", "log_loss")}
    for name in ("calibration_error", "auc", "average_precision"):
        if values := [one[name] for one in each if name in one]:
            metrics[name] = float(np.mean(values))
    return metrics | _predicted_class_metrics(y.astype(int), predicted_classes(p))


def _one_class_metrics(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    import numpy as np

    # expected calibration error over 10 bins of equal count: equal-width bins leave most rows in two or three
    metrics = {"calibration_error": sum(abs(a - b) * rows for a, b, rows in calibration_bins(y, p)) / len(y)}
    positives = float(y.sum())
    if 0 < positives < len(y):
        # how many of each class score at least as high as each distinct score, from the highest down
        order = np.argsort(-p, kind="stable")
        last_of_score = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)
        hits = np.cumsum(y[order])[last_of_score]
        alarms = last_of_score + 1 - hits
        hit_rate = np.append(0, hits / positives)
        metrics["auc"] = float(np.trapezoid(hit_rate, np.append(0, alarms / (len(y) - positives))))
        metrics["average_precision"] = float(np.sum(np.diff(hit_rate) * hits / (hits + alarms)))
    return metrics


def _predicted_class_metrics(y: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Accuracy, and the mean F1 of the classes that occur or are predicted."""
    import numpy as np

    groups, classes = (y, predicted, y[y == predicted]), max(y.max(), predicted.max()) + 1
    actual, positive, hits = (np.bincount(group, minlength=classes) for group in groups)
    used = actual + positive > 0
    return {"accuracy": hits.sum() / len(y), "macro_f1": float(np.mean(2 * hits[used] / (actual + positive)[used]))}


def _regression(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    import numpy as np

    spread = float(np.sum((y - y.mean()) ** 2))
    metrics = {"mae": float(np.mean(np.abs(y - p))), "rmse": float(np.sqrt(np.mean((y - p) ** 2)))}
    if spread > 0:
        metrics["r2"] = 1 - float(np.sum((y - p) ** 2)) / spread
    return metrics
