from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from tasks.statistics.bootstrap import MAX_GROUPS, paired_bootstrap, ratio_interval
from tasks.train.metrics import losses


def test_paired_bounds_agree_with_scipy() -> None:
    """Percentile bounds of the mean difference, from pairs that stay together."""
    random = np.random.default_rng(1)
    champion = random.exponential(1, 200)
    challenger = champion + random.normal(0.1, 0.5, 200)
    found = paired_bootstrap(challenger, champion, confidence=0.95, resamples=5000)
    expected = stats.bootstrap(
        (challenger, champion),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=5000,
        confidence_level=0.9,  # two-sided, as two one-sided bounds of 95 %
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.005)


def test_clustered_bounds_agree_with_scipy() -> None:
    """Clusters of equal size: resampling them is resampling their means."""
    random = np.random.default_rng(3)
    means = random.normal(0.2, 1, 60)
    values, clusters = np.repeat(means, 5), np.repeat(np.arange(60), 5)
    bounds = ratio_interval(values, np.ones(300), clusters, resamples=5000)
    expected = stats.bootstrap(
        (means,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(4)
    ).confidence_interval
    assert bounds == pytest.approx((expected.low, expected.high), abs=0.03)
    assert ratio_interval(values, np.zeros(300), clusters) is None


def test_bounds_cover_the_truth_as_often_as_they_say() -> None:
    """Where the mean difference is known, a 90 % bound lies on its side of it about 90 times of 100."""
    random = np.random.default_rng(2)
    above = below = 0
    for trial in range(800):
        differences = random.exponential(0.1, 600) - 0.1  # skewed, true mean 0
        found = paired_bootstrap(differences, np.zeros(600), confidence=0.9, resamples=300, seed=trial)
        above += found.high >= 0
        below += found.low <= 0
    assert 0.85 <= above / 800 <= 0.95
    assert 0.85 <= below / 800 <= 0.95


def test_a_truly_worse_challenger_rarely_passes() -> None:
    """Errors of the gate: what is worse by the margin passes at most about 1 - confidence of the time."""
    random = np.random.default_rng(2)
    passed = 0
    for trial in range(300):
        champion = random.random(500)
        challenger = champion + 0.02 + random.normal(0, 0.2, 500)
        passed += paired_bootstrap(challenger, champion, resamples=300, seed=trial).is_not_worse(margin=0.02)
    assert passed / 300 <= 0.09


def test_a_better_challenger_passes_and_a_bad_one_is_shown_to_be_worse() -> None:
    """Brier losses of an honest model against a noisy one, both ways."""
    random = np.random.default_rng(3)
    p = random.beta(2, 5, 3000)
    y = (random.random(3000) < p).astype(float)
    honest, noisy = (losses("brier", y, q) for q in (p, np.clip(p + random.normal(0, 0.2, 3000), 0, 1)))
    assert paired_bootstrap(honest, noisy).is_not_worse(0)
    assert paired_bootstrap(noisy, honest).is_worse(0)
    assert not paired_bootstrap(noisy, honest).is_not_worse(0)


def test_identical_scores_are_not_worse() -> None:
    """No difference is no difference, at margin 0 too."""
    losses = np.random.default_rng(4).random(1000)
    found = paired_bootstrap(losses, losses)
    assert (found.low, found.difference, found.high) == (0, 0, 0)
    assert found.is_not_worse(0)


def test_pairing_cancels_what_is_hard_for_both() -> None:
    """A small steady gain shows in noise a hundred times its size; shuffled, the pairs would hide it."""
    random = np.random.default_rng(5)
    hard = random.normal(1, 1, 2000)
    better = hard - 0.01 + random.normal(0, 0.01, 2000)
    assert paired_bootstrap(better, hard).is_not_worse(0)
    assert not paired_bootstrap(random.permutation(better), hard).is_not_worse(0)


def test_many_rows_in_groups_give_the_same_bounds_in_bounded_memory() -> None:
    """A million rows: bounds as theory has them, repeatable, and no matrix of rows times resamples."""
    random = np.random.default_rng(6)
    differences = random.normal(0.001, 0.1, 1_000_003)
    zeros = np.zeros(len(differences))
    tracemalloc.start()
    found = paired_bootstrap(differences, zeros)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200e6
    assert len(differences) > MAX_GROUPS
    error = 0.1 / np.sqrt(len(differences))
    assert found.high - found.difference == pytest.approx(1.645 * error, rel=0.15)
    assert found.difference - found.low == pytest.approx(1.645 * error, rel=0.15)
    assert paired_bootstrap(differences, zeros) == found


def test_losses_of_other_examples_are_refused() -> None:
    """Not the same number, or none at all."""
    with pytest.raises(ValueError, match="could not be broadcast"):
        paired_bootstrap(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="at least one"):
        paired_bootstrap(np.zeros(0), np.zeros(0))


def test_so_many_rows_would_show_a_difference() -> None:
    """The number of rows after which a difference like this one is shown in about 80 of 100 tries."""
    random = np.random.default_rng(5)
    noise = random.normal(0, 1, 400)
    found = paired_bootstrap((noise - noise.mean()) / noise.std() - 0.05, np.zeros(400))
    assert not found.is_not_worse(0)
    needed = found.rows_needed(0)
    assert needed is not None
    tries = [random.normal(found.difference, 1, needed) for _ in range(200)]
    shown = [paired_bootstrap(each, np.zeros(needed), resamples=200).is_not_worse(0) for each in tries]
    assert 0.7 < np.mean(shown) < 0.9
    assert found.rows_needed(-1) is not None  # that it is worse
    assert paired_bootstrap(np.zeros(9), np.zeros(9)).rows_needed(0.1) is None
