"""Permutation p-values equal those of scipy, which permutes rows where ours permutes counts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tasks.statistics.binned_metrics import macro_f1
from tasks.statistics.permutation import (
    benjamini_hochberg,
    bin_counts,
    jensen_shannon_p_value,
    mean_p_value,
    permutation_p_value,
    ratio_p_value,
    row_permutation_p_value,
    share_p_value,
    wasserstein_p_value,
)

TOLERANCE = 0.03  # two random estimates from 4,999 permutations differ by less than this
EXACT = {"permutation_type": "independent", "n_resamples": 4999, "rng": np.random.default_rng(0)}


@pytest.fixture(params=[0.0, 0.6])
def samples(request) -> tuple[np.ndarray, np.ndarray]:
    """Few distinct values, so that each value has a bin of its own and binning loses nothing."""
    random = np.random.default_rng(1)
    return random.integers(0, 5, 30).astype(float), random.integers(0, 5, 25) + request.param


def scipy_p_value(samples, statistic, alternative="greater") -> float:
    return float(stats.permutation_test(samples, statistic, alternative=alternative, **EXACT).pvalue)


def test_mean_agrees_with_scipy(samples):
    """A rise of the mean, one-sided."""
    expected = scipy_p_value(samples, lambda a, b: np.mean(b) - np.mean(a))
    assert mean_p_value(*samples) == pytest.approx(expected, abs=TOLERANCE)


def test_wasserstein_agrees_with_scipy(samples):
    """The distance between two samples of numbers."""
    expected = scipy_p_value(samples, stats.wasserstein_distance)
    assert wasserstein_p_value(*samples) == pytest.approx(expected, abs=TOLERANCE)


def test_share_agrees_with_fisher():
    """With one share, the permutation distribution is Fisher's exact one where both sides have the same rows."""
    a, b = np.arange(20) < 4, np.arange(20) < 11
    expected = stats.fisher_exact([[4, 16], [11, 9]]).pvalue
    assert share_p_value(a, b) == pytest.approx(expected, abs=TOLERANCE)


def test_jensen_shannon_agrees_with_scipy():
    """The distance between two samples of texts."""
    from scipy.spatial.distance import jensenshannon

    random = np.random.default_rng(2)
    codes = random.choice(3, 24, p=[0.6, 0.3, 0.1]), random.choice(3, 24, p=[0.3, 0.3, 0.4])

    def distance(a, b):
        return jensenshannon(*(np.bincount(side.astype(int), minlength=3) for side in (a, b)))

    texts = [np.array(list("abc"))[side] for side in codes]
    assert jensen_shannon_p_value(*texts) == pytest.approx(scipy_p_value(codes, distance), abs=TOLERANCE)


def test_ratio_agrees_with_scipy():
    """A fall of a ratio of sums, such as precision; scipy permutes the numbers of rows."""
    random = np.random.default_rng(3)
    rows = np.stack([random.integers(0, 3, 40), random.integers(1, 4, 40)], axis=1).astype(float)
    window = rows[20:].copy()
    window[:, 0] *= random.random(20) < 0.7

    def fall(a, b):
        pool = np.concatenate([rows[:20], window])
        before, after = (pool[side.astype(int)].sum(axis=0) for side in (a, b))
        return before[0] / before[1] - after[0] / after[1]

    expected = scipy_p_value((np.arange(20), np.arange(20, 40)), fall)
    assert ratio_p_value(rows[:20], window, sign=-1.0) == pytest.approx(expected, abs=TOLERANCE)


def test_rows_agree_with_scipy(samples):
    """Permuted rows instead of counts: the distance of two means of one column."""
    a, b = samples

    def distance(first, second):
        return abs(np.mean(first) - np.mean(second))

    rows = [np.stack([side, np.ones(len(side))], axis=1) for side in samples]
    found = row_permutation_p_value(*rows, lambda x, y: np.abs(x[:, 0] / x[:, 1] - y[:, 0] / y[:, 1]))
    assert found == pytest.approx(scipy_p_value((a, b), distance), abs=TOLERANCE)


def test_macro_f1_is_that_of_scikit_learn():
    """The binned metric of a confusion matrix, and no p-value without any change that can be computed."""
    from sklearn.metrics import f1_score

    random = np.random.default_rng(4)
    labels, predictions = random.integers(0, 3, 50), random.integers(0, 3, 50)
    counts = bin_counts([3 * labels + predictions], 9)[0]
    assert macro_f1(counts[None])[0] == pytest.approx(f1_score(labels, predictions, average="macro"))
    assert permutation_p_value([counts, counts], lambda a, b: np.full(len(a), np.nan)) is None


def test_a_missing_p_value_is_left_out():
    """The others are adjusted as scipy adjusts them."""
    assert benjamini_hochberg({"a": 0.01, "b": None, "c": 0.04}) == {"a": 0.02, "c": 0.04}
    assert benjamini_hochberg({"b": None}) == {}
