"""Whether a worse metric may be chance, from rows counted in cells of scores and outcomes, or of errors; and a bias."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from tasks.evaluate.metrics import HIGHER_IS_BETTER
from tasks.monitor.permutation import cells_of, counts_of, means_of, permutation_p_value
from tasks.monitor.tabular.labels_and_predictions import Side, errors_of, most_biased_class
from tasks.monitor.tabular.multiclass_permutation import chance_of_classes
from tasks.train.classes import Classes, predicted_in
from tasks.train.metrics import add_other_class, losses, mask_known

if TYPE_CHECKING:
    import numpy as np

ONE_AGAINST_REST = ("auc", "average_precision", "calibration_error")  # of three classes or more, the mean of each
SCORES = 30  # cells of predictions, or of errors
GROUPS = 10  # of cells, that calibration is told by
Statistic: TypeAlias = "Callable[[np.ndarray], np.ndarray]"  # of counts (deals, cells)


def performance_chances(now: Side, then: Side, classes: Classes, metric: str) -> dict[str, float | None]:
    """The p-values of the watched metric having become worse, and of the bias being other than 0."""
    import numpy as np

    known = [mask_known(y, p) for y, p in (then, now)]
    sides = [(y[rows], p[rows]) for (y, p), rows in zip((then, now), known, strict=True)]
    if not all(len(y) for y, _ in sides):
        return {}
    worst = most_biased_class(sides[1], classes)
    bias = _bias_chance(*(errors_of(side, worst) for side in sides))
    if bias is not None and len(classes) > 2:
        bias = min(1.0, len(classes) * bias)  # of so many looks, the worst one counts
    if classes:  # what a model does not know is wrong, on both sides the same way
        y, p = add_other_class(*(np.concatenate(values) for values in zip(*sides, strict=True)))
        first = len(sides[0][0])
        sides = [(y[:first], p[:first]), (y[first:], p[first:])]
    if len(classes) <= 2:
        worse = _worse(sides, metric, classified=bool(classes))
    elif metric in ONE_AGAINST_REST:
        each = [_worse([(y == k, p[:, k]) for y, p in sides], metric, classified=True) for k in range(p.shape[1])]
        found = [one for one in each if one is not None]
        worse = min(1.0, len(found) * min(found)) if found else None
    else:
        worse = chance_of_classes(sides[0], sides[1], metric)
    return {"performance": worse, "bias": bias}


def _worse(sides: list[Side], metric: str, *, classified: bool) -> float | None:
    """The p-value of numbers, or of one class against the rest."""
    import numpy as np

    cells = _classes(sides) if classified else _errors(sides)
    y, p = (np.concatenate(values).astype(float) for values in zip(*sides, strict=True))
    many, of_all = 2 * SCORES, np.concatenate(cells)
    sign = -1.0 if metric in HIGHER_IS_BETTER else 1.0
    value = _statistic(metric, of_all, y, p)
    return permutation_p_value(counts_of(cells, many), lambda a, b: sign * (value(b) - value(a)))


def _bias_chance(then: np.ndarray, now: np.ndarray) -> float | None:
    """The p-value of a mean error as far from 0 as that of the window.

    Not of a change: a bias of the hold-out's few days does not make the same bias of a month right. Means of hundreds
    of errors are normal, with the spread of the hold-out's errors, or the window's own where that is larger.
    """
    from scipy.stats import norm

    spread = float(max(then.std(), now.std()))
    return float(2 * norm.sf(abs(now.mean()) * len(now) ** 0.5 / spread)) if spread > 0 else None


def _classes(sides: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """A cell for each quantile of the predictions and each outcome, lowest predictions first."""
    scores = cells_of(*(p for _, p in sides), cells=SCORES)
    return [2 * score + (y > 0.5).astype(int) for score, (y, _) in zip(scores, sides, strict=True)]


def _errors(sides: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """A cell for each quantile of the errors."""
    return list(cells_of(*(p - y for y, p in sides), cells=2 * SCORES))


def _statistic(metric: str, cells: np.ndarray, y: np.ndarray, p: np.ndarray) -> Statistic:
    """A metric computed from how many rows are in each cell, each of which stands for its mean."""
    import numpy as np

    def mean_by(values: np.ndarray) -> np.ndarray:
        return means_of(cells, values, 2 * SCORES)

    if metric in ("brier", "log_loss"):
        return _mean(mean_by(losses(metric, y, p)))  # type: ignore[arg-type]
    if metric in ("accuracy", "macro_f1"):
        said = predicted_in(p)
        right, both, yes, told = (_mean(mean_by(values)) for values in (said == y, said * y, y, said))
        if metric == "accuracy":
            return right
        return lambda counts: (
            both(counts) / (yes(counts) + told(counts))
            + (right(counts) - both(counts)) / (2 - yes(counts) - told(counts))
        )
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
