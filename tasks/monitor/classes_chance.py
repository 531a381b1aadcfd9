"""Whether a worse metric of three classes or more may be chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.evaluate.metrics import HIGHER_IS_BETTER
from tasks.monitor.chance import SEED, chance, chance_of_mean, counts_of
from tasks.monitor.sides import Side
from tasks.train.classes import predicted_in
from tasks.train.metrics import losses, measure

if TYPE_CHECKING:
    import numpy as np

ROWS = 2000  # of each side that are dealt one by one
DEALS = 999


def chance_of_classes(then: Side, now: Side, metric: str) -> float | None:
    """The p-value of the metric having become worse, each row's class among those of its probabilities."""
    if metric in ("brier", "log_loss"):
        return chance_of_mean(*(losses(metric, y, p) for y, p in (then, now)))  # type: ignore[arg-type]
    if metric == "accuracy":
        return chance_of_mean(*((predicted_in(p) != y).astype(float) for y, p in (then, now)))
    if metric == "macro_f1":
        return _of_confusions(then, now)
    return _of_rows(then, now, metric)


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
    return chance(counts_of(cells, many * many), lambda a, b: value(a) - value(b))


def _of_rows(then: Side, now: Side, metric: str) -> float | None:
    """Rows dealt one by one: no cell tells how several probabilities rank or are calibrated."""
    import numpy as np

    random = np.random.default_rng(SEED)
    some = [random.permutation(len(y))[:ROWS] for y, _ in (then, now)]
    y, p = (np.concatenate([side[i][rows] for side, rows in zip((then, now), some, strict=True)]) for i in (0, 1))
    sign = -1.0 if metric in HIGHER_IS_BETTER else 1.0

    def worse(order: np.ndarray) -> float:
        first, second = order[: len(some[0])], order[len(some[0]) :]
        values = [measure(y[rows], p[rows], "classification").get(metric, np.nan) for rows in (first, second)]
        return sign * (values[1] - values[0])

    observed = worse(np.arange(len(y)))
    if not np.isfinite(observed):
        return None
    as_far = sum(not worse(random.permutation(len(y))) < observed - 1e-12 for _ in range(DEALS))
    return (1 + as_far) / (1 + DEALS)
