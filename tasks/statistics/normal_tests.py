"""Tests by the normal approximation, for statistics of hundreds of rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def zero_mean_p_value(values: np.ndarray, *, deviation: float) -> float | None:
    """The two-sided p-value of a mean that is 0 (z-test); `deviation` is that of the values, None when it is 0."""
    from scipy.stats import norm

    if not len(values) or deviation <= 0:
        return None
    return float(2 * norm.sf(abs(float(values.mean())) * len(values) ** 0.5 / deviation))


def auc_p_value(auc: float, negatives: int, positives: int) -> float:
    """The one-sided p-value of an AUC of .5, by the variance of the Mann-Whitney statistic.

    Source: Mann and Whitney, On a Test of Whether one of Two Random Variables is Stochastically Larger (1947).
    """
    from scipy.stats import norm

    deviation = math.sqrt((negatives + positives + 1) / (12 * negatives * positives))
    return float(norm.sf((auc - 0.5) / deviation))
