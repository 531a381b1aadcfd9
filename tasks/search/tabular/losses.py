"""A metric as losses of single examples, so that two configurations are compared on the same examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.train.metrics import add_other_class, losses

if TYPE_CHECKING:
    import numpy as np

METRICS = {
    "classification": ("auc", "brier", "log_loss", "accuracy"),
    "regression": ("r2", "mae", "rmse"),
}


def example_losses(metric: str, target: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The loss of each example, whose mean is the metric, or 1 minus one that is better when higher; rmse: squared.

    `target` has the numbers of classes, `prediction` the probability of the second of two, or (rows, classes).
    """
    import numpy as np

    if metric == "auc":
        return _ranking_losses(target, prediction)
    if metric in ("brier", "log_loss"):
        return losses(metric, target, prediction)
    if metric == "accuracy":
        chosen = prediction.argmax(axis=1) if prediction.ndim == 2 else prediction >= 0.5
        return np.asarray(chosen != target, float)
    errors = losses("absolute_error" if metric == "mae" else "squared_error", target, prediction)
    return errors / (float(np.var(target)) or 1.0) if metric == "r2" else errors


def _ranking_losses(target: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """1 minus each example's part of the area under the curve; of several classes the mean, each against the rest.

    Source: DeLong, DeLong and Clarke-Pearson, Comparing the areas under two or more correlated receiver operating
    characteristic curves, Biometrics 44 (1988): the mean of the parts is the area, and their variance is its own.
    """
    import numpy as np

    y, p = add_other_class(np.asarray(target, float), np.asarray(prediction, float))
    sides = [(y == 1, p)] if p.ndim == 1 else [(y == k, p[:, k]) for k in range(p.shape[1])]
    parts = [_parts(positive, score) for positive, score in sides if 0 < positive.sum() < len(positive)]
    return 1 - np.mean(parts, axis=0) if parts else np.full(len(y), 0.5)


def _parts(positive: np.ndarray, score: np.ndarray) -> np.ndarray:
    import numpy as np

    ones, zeros = np.sort(score[positive]), np.sort(score[~positive])

    def below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
        left, right = np.searchsorted(others, values, "left"), np.searchsorted(others, values, "right")
        return (left + right) / (2 * len(others))

    place = np.where(positive, below(score, zeros), 1 - below(score, ones))
    area = float(place[positive].mean())
    weight = np.where(positive, len(score) / len(ones), len(score) / len(zeros))
    return area + weight * (place - area)
