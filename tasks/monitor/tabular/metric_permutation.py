"""Permutation tests of a worse metric, on rows counted in bins of scores and outcomes or of errors; a test of bias."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from tasks.monitor.tabular.labels_and_predictions import LabelsAndPredictions, errors_of, most_biased_class
from tasks.statistics.binned_metrics import BinnedMean, auc, average_precision, macro_f1
from tasks.statistics.metric_catalog import HIGHER_IS_BETTER
from tasks.statistics.permutation import bin_counts, bin_means, mean_p_value, permutation_p_value, quantile_bins
from tasks.train.classes import Classes, predicted_classes
from tasks.train.metrics import add_other_class, losses, mask_known

if TYPE_CHECKING:
    import numpy as np

ONE_VS_REST = ("auc", "average_precision", "calibration_error")  # of three classes or more, the mean over classes
SCORE_BINS = 30
BINS = 2 * SCORE_BINS  # of scores and outcomes, or of errors
CALIBRATION_BINS = 10
BinnedMetric: TypeAlias = "Callable[[np.ndarray], np.ndarray]"  # from counts of shape (permutations, bins)


def performance_p_values(
    window: LabelsAndPredictions, reference: LabelsAndPredictions, classes: Classes, metric: str
) -> dict[str, float | None]:
    """The p-values of a worse metric (one-sided) and of a bias other than 0 (two-sided)."""
    import numpy as np

    known = [mask_known(y, p) for y, p in (reference, window)]
    sides = [(y[rows], p[rows]) for (y, p), rows in zip((reference, window), known, strict=True)]
    if not all(len(y) for y, _ in sides):
        return {}
    worst = most_biased_class(sides[1], classes)
    bias = _bias_p_value(*(errors_of(side, worst) for side in sides))
    if bias is not None and len(classes) > 2:
        bias = min(1.0, len(classes) * bias)  # Bonferroni: the worst of all classes was chosen
    if classes:  # a class that the model does not know is a wrong prediction, on both sides
        y, p = add_other_class(*(np.concatenate(values) for values in zip(*sides, strict=True)))
        first = len(sides[0][0])
        sides = [(y[:first], p[:first]), (y[first:], p[first:])]
    if len(classes) <= 2:
        worse = _worse_p_value(sides, metric, classification=bool(classes))
    elif metric in ONE_VS_REST:
        each = [
            _worse_p_value([(y == k, p[:, k]) for y, p in sides], metric, classification=True)
            for k in range(p.shape[1])
        ]
        p_values = [value for value in each if value is not None]
        worse = min(1.0, len(p_values) * min(p_values)) if p_values else None
    else:
        worse = _worse_multiclass_p_value(sides, metric)
    return {"performance": worse, "bias": bias}


def _worse_p_value(sides: list[LabelsAndPredictions], metric: str, *, classification: bool) -> float | None:
    """The p-value for numbers, or for one class against the rest."""
    import numpy as np

    bins = _score_outcome_bins(sides) if classification else list(quantile_bins(*(p - y for y, p in sides), bins=BINS))
    y, p = (np.concatenate(values).astype(float) for values in zip(*sides, strict=True))
    sign = -1.0 if metric in HIGHER_IS_BETTER else 1.0
    value = _binned_metric(metric, np.concatenate(bins), y, p)
    return permutation_p_value(bin_counts(bins, BINS), lambda a, b: sign * (value(b) - value(a)))


def _worse_multiclass_p_value(sides: list[LabelsAndPredictions], metric: str) -> float | None:
    """The p-value of brier, log_loss, accuracy or macro_f1 over three classes or more."""
    if metric in ("brier", "log_loss"):
        return mean_p_value(*(losses(metric, y, p) for y, p in sides))
    if metric == "accuracy":
        return mean_p_value(*((predicted_classes(p) != y).astype(float) for y, p in sides))
    classes = sides[1][1].shape[1]
    confusions = [classes * y.astype(int) + predicted_classes(p) for y, p in sides]
    return permutation_p_value(bin_counts(confusions, classes**2), lambda a, b: macro_f1(a) - macro_f1(b))


def _bias_p_value(reference: np.ndarray, window: np.ndarray) -> float | None:
    """The p-value of a mean error as far from 0 as the window's: a z-test.

    The test is not of a change: a bias on the hold-out's few days does not excuse the same bias over a month. The mean
    of hundreds of errors is normal; its spread is that of the hold-out's errors, or the window's own where larger.
    """
    from scipy.stats import norm

    spread = float(max(reference.std(), window.std()))
    return float(2 * norm.sf(abs(window.mean()) * len(window) ** 0.5 / spread)) if spread > 0 else None


def _score_outcome_bins(sides: list[LabelsAndPredictions]) -> list[np.ndarray]:
    """A bin for each quantile of the scores and each outcome, lowest scores first, negatives before positives."""
    scores = quantile_bins(*(p for _, p in sides), bins=SCORE_BINS)
    return [2 * score + (y > 0.5).astype(int) for score, (y, _) in zip(scores, sides, strict=True)]


def _binned_metric(metric: str, bins: np.ndarray, y: np.ndarray, p: np.ndarray) -> BinnedMetric:
    """A metric of the counts by bin, in which each row counts as the mean of its bin."""
    import numpy as np

    def mean_by_bin(values: np.ndarray) -> BinnedMean:
        return BinnedMean(bin_means(bins, values, BINS))

    if metric in ("brier", "log_loss"):
        return mean_by_bin(losses(metric, y, p))
    if metric in ("accuracy", "macro_f1"):
        predicted = predicted_classes(p)
        right = mean_by_bin(predicted == y)
        if metric == "accuracy":
            return right
        both, actual, positive = (mean_by_bin(values) for values in (predicted * y, y, predicted))
        return lambda counts: (
            both(counts) / (actual(counts) + positive(counts))
            + (right(counts) - both(counts)) / (2 - actual(counts) - positive(counts))
        )
    if metric == "mae":
        return mean_by_bin(np.abs(y - p))
    if metric == "rmse":
        squared = mean_by_bin((y - p) ** 2)
        return lambda counts: np.sqrt(squared(counts))
    if metric == "r2":
        squared, mean, square = (mean_by_bin(values) for values in ((y - p) ** 2, y, y**2))
        return lambda counts: 1 - squared(counts) / (square(counts) - mean(counts) ** 2)
    if metric == "calibration_error":
        error = bin_means(bins, p - y, BINS)
        return lambda counts: (
            np.abs((counts * error).reshape(len(counts), CALIBRATION_BINS, -1).sum(axis=2)).sum(axis=1)
            / counts.sum(axis=1)
        )
    return auc if metric == "auc" else average_precision
