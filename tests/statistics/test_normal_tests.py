"""Tests by the normal approximation, against scipy's own."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from tasks.statistics.normal_tests import auc_p_value, zero_mean_p_value


def test_auc_has_the_p_value_of_mann_whitney():
    """On scores without ties."""
    random = np.random.default_rng(1)
    then, now = random.normal(size=300), random.normal(0.1, size=200)
    test = mannwhitneyu(now, then, alternative="greater", use_continuity=False, method="asymptotic")
    assert auc_p_value(test.statistic / (300 * 200), 300, 200) == pytest.approx(test.pvalue, rel=1e-6)


def test_a_mean_far_from_zero_is_significant():
    """Rejected at its rate when the mean is 0; nothing can be said without spread or rows."""
    random = np.random.default_rng(2)
    values = [zero_mean_p_value(random.normal(size=400), deviation=1.0) for _ in range(500)]
    assert 0.02 < np.mean([value is not None and value < 0.05 for value in values]) < 0.09
    assert (zero_mean_p_value(random.normal(1, size=400), deviation=1.0) or 0) < 1e-6
    assert zero_mean_p_value(np.zeros(4), deviation=0.0) is zero_mean_p_value(np.zeros(0), deviation=1.0) is None
