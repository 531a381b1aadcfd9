"""Bootstrap intervals of each metric of one side: the window's, or the hold-out's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tasks.monitor.tabular.binned import BINS, binned_metric, score_outcome_bins
from tasks.monitor.tabular.labels_and_predictions import LabelsAndPredictions
from tasks.statistics.binned_metrics import BinnedMean, macro_f1
from tasks.statistics.bootstrap import resampled_counts
from tasks.statistics.permutation import bin_means, quantile_bins
from tasks.train.classes import predicted_classes
from tasks.train.metrics import add_other_class, losses, mask_known

if TYPE_CHECKING:
    import numpy as np

MAX_ROWS = 20_000  # of more, a sample is resampled, and the interval scaled to all
MIN_ROWS = 30  # of fewer, an interval says nothing
CONFIDENCE = 0.95
SEED = 0
# from the counts by bin, of shape (resamples, bins), one array for each class against the rest
Statistic = Callable[[Sequence["np.ndarray"]], "np.ndarray"]


def metric_intervals(
    side: LabelsAndPredictions, metrics: dict[str, float], *, classification: bool
) -> dict[str, tuple[float, float]]:
    """Two-sided bounds of each metric; none of a metric that is not finite in most resamples."""
    import numpy as np

    y, p = side
    known = mask_known(y, p)
    y, p = y[known], p[known]
    rows = len(y)
    if rows < MIN_ROWS:
        return {}
    if classification:
        y, p = add_other_class(y, p)
    if rows > MAX_ROWS:
        chosen = np.sort(np.random.default_rng(SEED).permutation(rows)[:MAX_ROWS])
        y, p = y[chosen], p[chosen]
    scale = (len(y) / rows) ** 0.5
    intervals = {}
    for metric, value in metrics.items():
        members, bins, statistic = _binned(metric, y, p, classification=classification)
        observed = float(statistic([np.bincount(each, minlength=bins)[None] for each in members])[0])
        with np.errstate(divide="ignore", invalid="ignore"):
            values = statistic(resampled_counts(members, bins))
        if np.isfinite(observed) and np.isfinite(values).mean() > CONFIDENCE:
            # the statistic counts a row as the mean of its bin, so its distance from itself is added to the exact value
            offsets = np.nanquantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) - observed
            low, high = (float(value + scale * offset) for offset in offsets)
            intervals[metric] = round(low, 6), round(high, 6)
    return intervals


def _binned(
    metric: str, y: np.ndarray, p: np.ndarray, *, classification: bool
) -> tuple[list[np.ndarray], int, Statistic]:
    """The bin of each row, their number, and the metric of counts by bin."""
    import numpy as np

    if p.ndim == 1:
        members = score_outcome_bins([(y, p)])[0] if classification else quantile_bins(p - y, bins=BINS)[0]
        value = binned_metric(metric, members, y, p)
        return [members], BINS, lambda counts: value(counts[0])
    if metric == "macro_f1":
        classes = p.shape[1]
        return [classes * y.astype(int) + predicted_classes(p)], classes**2, lambda counts: macro_f1(counts[0])
    if metric in ("brier", "log_loss", "accuracy"):
        of_rows = losses(metric, y, p) if metric != "accuracy" else (predicted_classes(p) == y).astype(float)
        members = quantile_bins(of_rows, bins=BINS)[0]
        mean = BinnedMean(bin_means(members, of_rows, BINS))
        return [members], BINS, lambda counts: mean(counts[0])
    each = [((y == k).astype(float), p[:, k]) for k in range(p.shape[1]) if 0 < (y == k).sum() < len(y)]
    bins_of = [score_outcome_bins([one])[0] for one in each]
    values = [binned_metric(metric, members, *one) for members, one in zip(bins_of, each, strict=True)]
    return bins_of, BINS, lambda counts: np.mean([f(c) for f, c in zip(values, counts, strict=True)], axis=0)
