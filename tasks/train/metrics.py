"""How good predictions are: one number a metric, none where it can't be computed.

The evaluate room builds its tables on this. It stands here since a room may only use rooms before it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

CLASSIFICATION = ("auc", "average_precision", "brier", "log_loss", "calibration_error")
REGRESSION = ("mae", "rmse", "r2")
HIGHER_IS_BETTER = frozenset({"auc", "average_precision", "r2"})
BINS = 10
Loss = Literal["brier", "log_loss", "absolute_error", "squared_error"]


def metrics_of(task: str) -> tuple[str, ...]:
    """The metrics that fit a task."""
    return CLASSIFICATION if task == "classification" else REGRESSION


def measure(
    target: np.ndarray, prediction: np.ndarray, task: Literal["classification", "regression"]
) -> dict[str, float]:
    """Give each metric that fits the task; one that can't be computed (no rows, one class) is left out.

    Rows without a target or a prediction don't count.
    """
    import numpy as np

    y = np.asarray(target, float)
    p = np.asarray(prediction, float)
    known = np.isfinite(y) & np.isfinite(p)
    if not known.all():
        y, p = y[known], p[known]
    if not len(y):
        return {}
    found = _classification(y, p) if task == "classification" else _regression(y, p)
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def losses(loss: Loss, target: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The loss of each example."""
    import numpy as np

    y = np.asarray(target, float)
    p = np.asarray(prediction, float)
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
    import numpy as np

    binned = calibration_bins(y, p)
    found = {
        "brier": float(np.mean((y - p) ** 2)),
        "log_loss": float(losses("log_loss", y, p).mean()),
        # expected calibration error over 10 bins of equal count: equal-width bins leave most rows in two or three
        "calibration_error": sum(abs(a - b) * rows for a, b, rows in binned) / len(y),
    }
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


def _regression(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    import numpy as np

    spread = float(np.sum((y - y.mean()) ** 2))
    found = {"mae": float(np.mean(np.abs(y - p))), "rmse": float(np.sqrt(np.mean((y - p) ** 2)))}
    if spread > 0:
        found["r2"] = 1 - float(np.sum((y - p) ** 2)) / spread
    return found
