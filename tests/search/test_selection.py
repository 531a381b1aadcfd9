"""Comparisons on the same examples."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.search.results import TrialRecord
from tasks.search.selection import choose, compare, front, importance, is_beaten, is_shown_better, knee, optimism
from tasks.search.tabular.losses import example_losses
from tasks.train.metrics import compute_metrics


def trial(number: int, loss: float, seconds: float, **more: object) -> TrialRecord:
    values = {"arm": "a", "label": "", "configuration": {"n": number}, "state": "complete", "rungs": 1}
    return TrialRecord(number=number, loss=loss, call_seconds=seconds, **{**values, **more})


def test_losses_of_the_auc_have_its_mean():
    """1 minus the area is the mean loss, with ties too; so it can be compared row by row."""
    random = np.random.default_rng(0)
    target = random.integers(0, 2, 500).astype(float)
    prediction = np.round(random.random(500) + 0.3 * target, 1)
    area = compute_metrics(target, prediction, "classification")["auc"]
    assert example_losses("auc", target, prediction).mean() == pytest.approx(1 - area)


def test_losses_of_r2_have_its_mean():
    """1 minus r2."""
    random = np.random.default_rng(0)
    target = random.normal(size=100)
    prediction = target + random.normal(size=100)
    share = compute_metrics(target, prediction, "regression")["r2"]
    assert example_losses("r2", target, prediction).mean() == pytest.approx(1 - share)


def test_only_a_worse_trial_is_beaten():
    """A difference within the noise stops nobody."""
    random = np.random.default_rng(0)
    best = random.random(400)
    assert is_beaten(best + 0.1 + 0.1 * random.random(400), best, None)
    assert not is_beaten(best - 0.05 + 0.1 * random.random(400), best, None)


def test_the_front_has_no_trial_that_another_beats():
    """The best, the fastest, and what lies between; the knee is where speed starts to cost."""
    trials = [trial(0, 0.3, 0.1), trial(1, 0.2, 1.0), trial(2, 0.21, 0.01), trial(3, 0.5, 0.001), trial(4, 0.4, 0.5)]
    assert [each.number for each in front(trials)] == [1, 2, 3]
    bend = knee(front(trials))
    assert bend is not None
    assert bend.number == 2


def test_the_choice_is_the_best_or_a_fast_one_near_it():
    """As the case prefers."""
    trials = [trial(0, 0.3, 0.1), trial(1, 0.2, 1.0), trial(2, 0.205, 0.01)]
    assert choose(trials, "quality", 0.01).number == 1
    assert choose(trials, "cheap", 0.01).number == 2


def test_the_best_of_equals_is_lucky():
    """Of trials that differ by noise alone, the choice promises more than new examples show."""
    randoms = [np.random.default_rng(seed) for seed in range(6)]
    found = [optimism({number: random.random(200) for number in range(30)}) for random in randoms]
    assert np.mean([luck.loss for luck in found if luck]) < 0.47
    assert np.mean([luck.corrected for luck in found if luck]) == pytest.approx(0.5, abs=0.02)


def noise(seed: int, trials: int) -> dict[int, np.ndarray]:
    random = np.random.default_rng(seed)
    return {number: random.normal(size=300) for number in range(trials)}


def test_the_best_of_many_is_rarely_shown_by_chance():
    """Of 40 searches of 20 equal trials, each of which names its best, about one in twenty; by one comparison more."""
    found = [noise(seed, 21) for seed in range(40)]
    chosen = [min(range(1, 21), key=lambda number: losses[number].mean()) for losses in found]
    shown = [is_shown_better(losses, number, 20, None) for losses, number in zip(found, chosen, strict=True)]
    alone = [compare(losses[n], losses[0], None).high < 0 for losses, n in zip(found, chosen, strict=True)]
    assert sum(shown) <= 4 < sum(alone)


def test_a_better_trial_is_shown_to_be_better():
    """Unless the race ended a hundred others of which as much is unknown."""
    losses = noise(0, 6)
    losses[3] -= 0.25
    assert is_shown_better(losses, 3, 5, None)
    assert not is_shown_better(losses, 3, 5000, None)
    assert not is_shown_better(losses, 0, 5, None)


def test_examples_of_one_cluster_count_as_one():
    """Ten clusters that disagree show nothing, although 300 examples by themselves would."""
    clusters = [str(k % 10) for k in range(300)]
    losses = {0: np.zeros(300), 1: np.array([-1.3 if k % 2 else 0.7 for k in range(300)])}
    assert is_shown_better(losses, 1, 1, None)
    assert not is_shown_better(losses, 1, 1, clusters)


def test_the_choice_that_matters_explains_most():
    """The family, where one of two is always better."""
    random = np.random.default_rng(0)
    trials = [
        trial(k, 0.2 + 0.1 * (k % 2) + 0.01 * random.random(), 0.1, best=0.2, parameters={"family": k % 2, "x": k // 2})
        for k in range(40)
    ]
    shares = importance(trials)
    assert next(iter(shares)) == "family"
    assert shares["family"] > 0.5 > shares["x"]
