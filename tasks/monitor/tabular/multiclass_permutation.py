"""Whether a worse metric of three classes or more may be chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.monitor.permutation import chance_of_mean, counts_of, permutation_p_value
from tasks.monitor.tabular.labels_and_predictions import Side
from tasks.train.classes import predicted_in
from tasks.train.metrics import losses

if TYPE_CHECKING:
    import numpy as np


def chance_of_classes(then: Side, now: Side, metric: str) -> float | None:
    """The p-value of brier, log_loss, accuracy or macro_f1 having become worse."""
    if metric in ("brier", "log_loss"):
        return chance_of_mean(*(losses(metric, y, p) for y, p in (then, now)))  # type: ignore[arg-type]
    if metric == "accuracy":
        return chance_of_mean(*((predicted_in(p) != y).astype(float) for y, p in (then, now)))
    return _of_confusions(then, now)


def _of_confusions(then: Side, now: Side) -> float | None:
    """F1 from how many rows have which class and are given which: a cell for each pair."""
    import numpy as np

    many = now[1].shape[1]

    def value(counts: np.ndarray) -> np.ndarray:
        pairs = counts.reshape(len(counts), many, many)
        both = pairs.sum(axis=1) + pairs.sum(axis=2)
        each = np.where(both > 0, 2 * np.diagonal(pairs, axis1=1, axis2=2) / np.maximum(both, 1), np.nan)
        return np.nanmean(each, axis=1)

    cells = [many * y.astype(int) + predicted_in(p) for y, p in (then, now)]
    return permutation_p_value(counts_of(cells, many * many), lambda a, b: value(a) - value(b))
