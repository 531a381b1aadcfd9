"""How good predictions are: one number a metric, none where it can't be computed.

The evaluate room builds its tables on this. It stands here since a room may only use rooms before it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from tasks.statistics.metric_catalog import LossName
from tasks.train.classes import predicted_in

if TYPE_CHECKING:
    import numpy as np

BINS = 10


def measure(
    target: np.ndarray, prediction: np.ndarray, task: Literal["classification", "regression"]
) -> dict[str, float]:
    """Give each metric that fits the task; one that can't be computed (no rows, one class) is left out.

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
    found = _classification(y, p) if task == "classification" else _regression(y, p)
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def mask_known(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Which rows have a target and a prediction."""
    import numpy as np

    return np.isfinite(y) & (np.isfinite(p) if p.ndim == 1 else np.isfinite(p).all(axis=1))


def add_other_class(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A row of a class that the model does not know (OTHER) is one of a class that it gave no chance: it is wrong."""
    import numpy as np

    other = y < 0
    if not other.any():
        return y, p
    if p.ndim == 1:
        return np.where(other, 1.0, y), np.where(other, 0.0, p)
    return np.where(other, p.shape[1], y), np.column_stack([p, np.zeros(len(p))])


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
    tiny = np.finfo(float).eps  # a certain and wrong answer costs 36, not infinity
    return -np.log(np.clip(np.where(y > 0.5, p, 1 - p), tiny, 1))


def calibration_bins(target: np.ndarray, prediction: np.ndarray, bins: int = BINS) -> list[tuple[float, float, int]]:
    """Give (mean prediction, mean target, rows) for bins of equal count, in order of prediction.

    Equal predictions may fall in two bins when they straddle a border; within them the order is the rows' own.
    """
    import numpy as np

    order = np.argsort(prediction, kind="stable")
    y, p = np.asarray(target, float)[order], np.asarray(prediction, float)[order]
    borders = np.linspace(0, len(p), min(bins, len(p)) + 1).astype(int)
    return [(float(p[a:b].mean()), float(y[a:b].mean()), int(b - a)) for a, b in pairwise(borders)]


def _classification(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """Of three classes or more, what is told of one class is the mean over all, each against the rest."""
    import numpy as np

    y, p = add_other_class(y, p)
    sides = [(y, p)] if p.ndim == 1 else [((y == k).astype(float), p[:, k]) for k in range(p.shape[1])]
    each = [_of_one_class(*side) for side in sides]
    found = {name: float(losses(name, y, p).mean()) for name in ("brier", "log_loss")}
    for name in ("calibration_error", "auc", "average_precision"):
        if values := [one[name] for one in each if name in one]:
            found[name] = float(np.mean(values))
    return found | _of_predicted(y.astype(int), predicted_in(p))


def _of_one_class(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    import numpy as np

    # expected calibration error over 10 bins of equal count: equal-width bins leave most rows in two or three
    found = {"calibration_error": sum(abs(a - b) * rows for a, b, rows in calibration_bins(y, p)) / len(y)}
    positives = float(y.sum())
    if 0 < positives < len(y):
        # how many of each class score at least as high as each distinct score, from the highest down
        order = np.argsort(-p, kind="stable")
        last_of_score = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)
        hits = np.cumsum(y[order])[last_of_score]
        alarms = last_of_score + 1 - hits
        hit_rate = np.append(0, hits / positives)
        found["auc"] = float(np.trapezoid(hit_rate, np.append(0, alarms / (len(y) - positives))))
        found["average_precision"] = float(np.sum(np.diff(hit_rate) * hits / (hits + alarms)))
    return found


def _of_predicted(y: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """Of classes alone; F1 is the mean over those that occur or are predicted."""
    import numpy as np

    seen, told, hits = (np.bincount(of, minlength=max(y.max(), said.max()) + 1) for of in (y, said, y[y == said]))
    some = seen + told > 0
    return {"accuracy": hits.sum() / len(y), "macro_f1": float(np.mean(2 * hits[some] / (seen + told)[some]))}


def _regression(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    import numpy as np

    spread = float(np.sum((y - y.mean()) ** 2))
    found = {"mae": float(np.mean(np.abs(y - p))), "rmse": float(np.sqrt(np.mean((y - p) ** 2)))}
    if spread > 0:
        found["r2"] = 1 - float(np.sum((y - p) ** 2)) / spread
    return found
