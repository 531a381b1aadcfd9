"""Performance expected from the champion's scores, once these are calibrated on the hold-out.

For rows without an outcome this is an estimate, provided that a score still means what it meant (no concept shift). For
rows with an outcome it is what harmless drift explains: some rows are harder, and no retraining changes that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.monitor.tabular.binned import SCORE_BINS, BinnedMetric
from tasks.monitor.tabular.labels_and_predictions import LabelsAndPredictions
from tasks.statistics.binned_metrics import BinnedMean, auc
from tasks.statistics.metric_catalog import HIGHER_IS_BETTER
from tasks.statistics.permutation import bin_counts, bin_means, mean_p_value, permutation_p_value, quantile_bins
from tasks.train.classes import predicted_classes
from tasks.train.metrics import losses

if TYPE_CHECKING:
    import numpy as np


def estimate(p: np.ndarray, reference: LabelsAndPredictions) -> dict[str, float]:
    """Expected AUC, Brier score and log loss of these predictions; of three classes or more accuracy instead of AUC.

    `reference` is the scored hold-out.
    """
    import numpy as np

    if not len(p):
        return {}
    if p.ndim == 2:
        probabilities = _calibrated_classes(reference, p)
        return {name: float(_expected_losses(name, probabilities, p).mean()) for name in ("brier", "log_loss")} | {
            "accuracy": 1 - float(_expected_losses("accuracy", probabilities, p).mean())
        }
    positive = _calibrated(reference, p)
    expected = {
        name: float(np.mean(positive * _losses(name, 1.0, p) + (1 - positive) * _losses(name, 0.0, p)))
        for name in ("brier", "log_loss")
    }
    order = np.argsort(p, kind="stable")
    scores, yes, no = p[order], positive[order], 1 - positive[order]
    starts = np.flatnonzero(np.append(True, np.diff(scores) > 0))  # equal scores are one bin
    sums = np.stack([np.add.reduceat(no, starts), np.add.reduceat(yes, starts)], axis=1)
    area = float(auc(sums.reshape(1, -1))[0]) if 0 < yes.sum() < len(p) else float("nan")
    return {name: value for name, value in {"auc": area, **expected}.items() if np.isfinite(value)}


def estimate_p_value(p: np.ndarray, reference: LabelsAndPredictions, metric: str) -> float | None:
    """The p-value of the estimated metric being worse than the hold-out's, estimated in the same way."""
    import numpy as np

    before = reference[1]
    if p.ndim == 2:
        sides = (before, p)
        return mean_p_value(*(_expected_losses(metric, _calibrated_classes(reference, side), side) for side in sides))
    bins, pool = quantile_bins(before, p, bins=SCORE_BINS), np.concatenate([before, p])
    members = np.concatenate(bins)
    positive = bin_means(members, _calibrated(reference, pool), SCORE_BINS)
    value = _expected_metric(metric, positive, members, pool)
    sign = -1.0 if metric in HIGHER_IS_BETTER else 1.0
    return permutation_p_value(bin_counts(bins, SCORE_BINS), lambda a, b: sign * (value(b) - value(a)))


def _expected_metric(metric: str, positive: np.ndarray, members: np.ndarray, pool: np.ndarray) -> BinnedMetric:
    """The metric from counts by bin; `positive` is the expected share of positives in each bin."""
    import numpy as np

    if metric == "auc":
        return lambda counts: auc(
            np.stack([counts * (1 - positive), counts * positive], axis=2).reshape(len(counts), -1)
        )
    no, yes = (bin_means(members, _losses(metric, y, pool), SCORE_BINS) for y in (0.0, 1.0))
    return BinnedMean((1 - positive) * no + positive * yes)


def _losses(metric: str, outcome: float, scores: np.ndarray) -> np.ndarray:
    import numpy as np

    return losses("brier" if metric == "brier" else "log_loss", np.full(len(scores), outcome), scores)


def _expected_losses(metric: str, probabilities: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The expected loss of each row under the calibrated probabilities; for accuracy, the probability of an error."""
    import numpy as np

    if metric == "accuracy":
        return 1 - probabilities[np.arange(len(p)), predicted_classes(p)]
    return sum(probabilities[:, k] * _losses(metric, k, p) for k in range(p.shape[1]))


def _calibrated(reference: LabelsAndPredictions, scores: np.ndarray, number: int = 1) -> np.ndarray:
    """The observed frequency of a class at these scores on the hold-out, by isotonic regression."""
    from sklearn.isotonic import IsotonicRegression

    y, p = reference
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    return fitted.fit(p, y == number).predict(scores)


def _calibrated_classes(reference: LabelsAndPredictions, p: np.ndarray) -> np.ndarray:
    """One class against the rest, each, scaled to sum to 1."""
    import numpy as np

    y, scores = reference
    each = np.stack([_calibrated((y, scores[:, k]), p[:, k], k) for k in range(p.shape[1])], axis=1)
    each += 1e-9  # where every class has 0
    return each / each.sum(axis=1, keepdims=True)
