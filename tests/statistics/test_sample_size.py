"""A comparison of the computed size detects the effect with the stated power, in simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tasks.statistics.sample_size import paired_sample_size, z_value

TRIALS = 4000
TOLERANCE = 0.03  # of the simulated power: noise, and the normal approximation


def test_paired_size_has_its_power():
    """A t-test of simulated differences."""
    n = paired_sample_size(0.3, 1.0)
    assert n == 71
    differences = np.random.default_rng(0).normal(0.3, 1.0, (TRIALS, n))
    p_values = stats.ttest_1samp(differences, 0, axis=1, alternative="greater").pvalue
    assert (p_values < 0.05).mean() == pytest.approx(0.8, abs=TOLERANCE)


@pytest.mark.parametrize(
    "call", [lambda: paired_sample_size(0, 1), lambda: paired_sample_size(0.1, 1, power=1), lambda: z_value(0)]
)
def test_an_impossible_effect_is_refused(call):
    """No effect needs infinitely many examples, and a probability lies between 0 and 1."""
    with pytest.raises(ValueError, match="must"):
        call()
