"""Metrics of rows that are counted in bins: of scores and outcomes for a classification, of errors for a regression."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from tasks.monitor.tabular.labels_and_predictions import LabelsAndPredictions
from tasks.statistics.binned_metrics import BinnedMean, auc, average_precision
from tasks.statistics.permutation import bin_means, quantile_bins
from tasks.train.classes import predicted_classes
from tasks.train.metrics import losses

if TYPE_CHECKING:
    import numpy as np

SCORE_BINS = 30
BINS = 2 * SCORE_BINS  # of scores and outcomes, or of errors
CALIBRATION_BINS = 10
BinnedMetric: TypeAlias = "Callable[[np.ndarray], np.ndarray]"  # from counts of shape (samples, bins)


def score_outcome_bins(sides: list[LabelsAndPredictions]) -> list[np.ndarray]:
    """A bin for each quantile of the scores and each outcome, lowest scores first, negatives before positives."""
    scores = quantile_bins(*(p for _, p in sides), bins=SCORE_BINS)
    return [2 * score + (y > 0.5).astype(int) for score, (y, _) in zip(scores, sides, strict=True)]


def binned_metric(metric: str, bins: np.ndarray, y: np.ndarray, p: np.ndarray) -> BinnedMetric:
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
