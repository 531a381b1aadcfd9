"""Tests of a worse metric, on rows counted in bins, and of a bias."""

from __future__ import annotations

from tasks.monitor.tabular.binned import BINS, binned_metric, score_outcome_bins
from tasks.monitor.tabular.labels_and_predictions import LabelsAndPredictions, errors_of, most_biased_class
from tasks.statistics.binned_metrics import macro_f1
from tasks.statistics.metric_catalog import HIGHER_IS_BETTER
from tasks.statistics.normal_tests import zero_mean_p_value
from tasks.statistics.permutation import bin_counts, mean_p_value, permutation_p_value, quantile_bins
from tasks.train.classes import Classes, predicted_classes
from tasks.train.metrics import add_other_class, losses, mask_known

ONE_VS_REST = ("auc", "average_precision", "calibration_error")  # of three classes or more, the mean over classes


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
    # not a test of a change: a bias on the hold-out's few days does not excuse the same bias over a month
    errors = [errors_of(side, worst) for side in sides]
    bias = zero_mean_p_value(errors[1], deviation=float(max(each.std() for each in errors)))
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

    bins = score_outcome_bins(sides) if classification else list(quantile_bins(*(p - y for y, p in sides), bins=BINS))
    y, p = (np.concatenate(values).astype(float) for values in zip(*sides, strict=True))
    sign = -1.0 if metric in HIGHER_IS_BETTER else 1.0
    value = binned_metric(metric, np.concatenate(bins), y, p)
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
