"""Performance to expect from how sure the champion is: its scores, calibrated on the hold-out, taken at their word.

For rows without an outcome that is an estimate, if what a score means has not changed (no concept shift). For rows with
one it is what harmless drift explains: other rows can be harder, and no retraining helps against that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.evaluate.metrics import HIGHER_IS_BETTER
from tasks.monitor.permutation import cells_of, chance_of_mean, counts_of, means_of, permutation_p_value
from tasks.monitor.tabular.labels_and_predictions import Side
from tasks.monitor.tabular.metric_permutation import SCORES, Statistic, ranking
from tasks.train.classes import predicted_in
from tasks.train.metrics import losses

if TYPE_CHECKING:
    import numpy as np


def estimate(p: np.ndarray, then: Side) -> dict[str, float]:
    """AUC, Brier score and log loss to be expected of these predictions; of three classes or more no AUC, but accuracy.

    `then` is the scored hold-out.
    """
    import numpy as np

    if not len(p):
        return {}
    if p.ndim == 2:
        sure = _calibrated_classes(then, p)
        return {name: float(_expected_losses(name, sure, p).mean()) for name in ("brier", "log_loss")} | {
            "accuracy": 1 - float(_expected_losses("accuracy", sure, p).mean())
        }
    sure = _calibrated(then, p)
    found = {
        name: float(np.mean(sure * _losses(name, 1.0, p) + (1 - sure) * _losses(name, 0.0, p)))
        for name in ("brier", "log_loss")
    }
    order = np.argsort(p, kind="stable")
    scores, yes, no = p[order], sure[order], 1 - sure[order]
    starts = np.flatnonzero(np.append(True, np.diff(scores) > 0))  # equal scores stand together
    sums = np.stack([np.add.reduceat(no, starts), np.add.reduceat(yes, starts)], axis=1)
    auc = float(ranking("auc")(sums.reshape(1, -1))[0]) if 0 < yes.sum() < len(p) else float("nan")
    return {name: value for name, value in {"auc": auc, **found}.items() if np.isfinite(value)}


def estimate_chance(now: np.ndarray, reference: Side, metric: str) -> float | None:
    """The p-value of the estimated metric having become worse than the hold-out's, estimated alike."""
    import numpy as np

    then = reference[1]
    if now.ndim == 2:
        return chance_of_mean(*(_expected_losses(metric, _calibrated_classes(reference, p), p) for p in (then, now)))
    cells, pool = cells_of(then, now, cells=SCORES), np.concatenate([then, now])
    all_cells = np.concatenate(cells)
    sure = means_of(all_cells, _calibrated(reference, pool), SCORES)
    value = _expected(metric, sure, all_cells, pool)
    worse = -1.0 if metric in HIGHER_IS_BETTER else 1.0
    return permutation_p_value(counts_of(cells, SCORES), lambda a, b: worse * (value(b) - value(a)))


def _expected(metric: str, sure: np.ndarray, cells: np.ndarray, pool: np.ndarray) -> Statistic:
    """The metric from counts in cells, of each of which a share is sure to be yes."""
    import numpy as np

    if metric == "auc":
        area = ranking("auc")
        return lambda counts: area(np.stack([counts * (1 - sure), counts * sure], axis=2).reshape(len(counts), -1))
    no, yes = (means_of(cells, _losses(metric, y, pool), SCORES) for y in (0.0, 1.0))
    cost = (1 - sure) * no + sure * yes
    return lambda counts: counts @ cost / counts.sum(axis=1)


def _losses(metric: str, outcome: float, scores: np.ndarray) -> np.ndarray:
    import numpy as np

    return losses("brier" if metric == "brier" else "log_loss", np.full(len(scores), outcome), scores)


def _expected_losses(metric: str, sure: np.ndarray, p: np.ndarray) -> np.ndarray:
    """What each row will cost, by how sure its classes are; of accuracy, the chance of being wrong."""
    import numpy as np

    if metric == "accuracy":
        return 1 - sure[np.arange(len(p)), predicted_in(p)]
    return sum(sure[:, k] * _losses(metric, k, p) for k in range(p.shape[1]))


def _calibrated(then: Side, scores: np.ndarray, of: int = 1) -> np.ndarray:
    """How often a class is right at these scores, by the hold-out's."""
    from sklearn.isotonic import IsotonicRegression

    y, p = then
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    return fitted.fit(p, y == of).predict(scores)


def _calibrated_classes(then: Side, p: np.ndarray) -> np.ndarray:
    """Each class against the rest, made to sum to 1."""
    import numpy as np

    y, known = then
    sure = np.stack([_calibrated((y, known[:, k]), p[:, k], k) for k in range(p.shape[1])], axis=1)
    sure += 1e-9  # where no class is left
    return sure / sure.sum(axis=1, keepdims=True)
