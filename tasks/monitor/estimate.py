"""Performance to expect from how sure the champion is: its scores, calibrated on the hold-out, taken at their word.

For rows without an outcome that is an estimate, if what a score means has not changed (no concept shift). For rows with
one it is what harmless drift explains: other rows can be harder, and no retraining helps against that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.evaluate.metrics import HIGHER_IS_BETTER
from tasks.monitor.chance import cells_of, chance, counts_of, means_of
from tasks.monitor.performance_chance import SCORES, Statistic, ranking
from tasks.train.metrics import losses

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

ESTIMATED = ("auc", "brier", "log_loss")


def estimate(rows: pd.DataFrame, reference: pd.DataFrame, outcome: str) -> dict[str, float]:
    """AUC, Brier score and log loss to be expected of these rows; `reference` is the scored hold-out."""
    import numpy as np

    p = rows["prediction"].to_numpy(float)
    if not len(p):
        return {}
    sure = _calibrated(reference, outcome, p)
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


def estimate_chance(unknown: pd.DataFrame, reference: pd.DataFrame, outcome: str, metric: str) -> float | None:
    """The p-value of the estimated metric having become worse than the hold-out's, estimated alike."""
    import numpy as np

    then, now = (side["prediction"].to_numpy(float) for side in (reference, unknown))
    cells, pool = cells_of(then, now, cells=SCORES), np.concatenate([then, now])
    all_cells = np.concatenate(cells)
    sure = means_of(all_cells, _calibrated(reference, outcome, pool), SCORES)
    value = _expected(metric, sure, all_cells, pool)
    worse = -1.0 if metric in HIGHER_IS_BETTER else 1.0
    return chance(counts_of(cells, SCORES), lambda a, b: worse * (value(b) - value(a)))


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


def _calibrated(reference: pd.DataFrame, outcome: str, scores: np.ndarray) -> np.ndarray:
    from sklearn.isotonic import IsotonicRegression

    known = reference[reference[outcome].notna()]
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    fitted.fit(known["prediction"].to_numpy(float), known[outcome].to_numpy(float))
    return fitted.predict(scores)
