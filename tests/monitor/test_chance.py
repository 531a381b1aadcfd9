"""Alarms are calibrated: as rare as a case states when nothing has changed, whatever the number of rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.alarms import lowest, world
from tasks.monitor.tabular.labels_and_predictions import labels_and_predictions
from tasks.monitor.tabular.metric_permutation import performance_p_values
from tasks.statistics.metric_catalog import metrics_of
from tasks.statistics.permutation import (
    jensen_shannon_p_value,
    mean_p_value,
    ratio_p_value,
    share_p_value,
    wasserstein_p_value,
)
from tasks.train.classes import DEFAULT_CLASSES, Classes, prediction_columns

THREE = ("a", "b", "c")
RATE = 0.2  # higher than a case would state: so that a few dozen windows tell something


@pytest.mark.parametrize(("rows", "windows"), [(1000, 40), (1_000_000, 8)])
def test_windows_without_drift_raise_no_more_alarms_than_stated(rows, windows):
    """Columns of numbers and texts, gaps, predictions, metric and bias together, replayed on windows without drift."""
    from scipy.stats import binom

    alarms = sum(value <= RATE for value in lowest(rows, windows, sample=1000, seed=1))
    assert alarms <= binom.ppf(0.999, windows, RATE)


def test_p_values_are_even_when_nothing_has_changed():
    """Each test by itself calls a twentieth of nothing a change, at few rows, heavy tails and rare texts, too."""
    from scipy.stats import binom

    random, found = np.random.default_rng(0), []
    for _ in range(60):
        heavy, rare = (
            np.exp(3 * random.normal(size=(2, 150))),
            random.choice(["a", "b", "c"], (2, 150), p=[0.96, 0.03, 0.01]),
        )
        yes = random.random((2, 150)) < 0.1
        ratio = np.stack([yes, np.ones_like(yes)], axis=2).astype(float)
        found += [
            [wasserstein_p_value(*heavy), jensen_shannon_p_value(*rare), share_p_value(*yes)],
        ]
        found[-1] += [ratio_p_value(*ratio), mean_p_value(*heavy)]
    for of_one_test in np.array(found).T:
        assert (of_one_test <= 0.05).sum() <= binom.ppf(0.999, 60, 0.05)
        assert (of_one_test <= 0.5).sum() <= binom.ppf(0.999, 60, 0.5)


def chances_of(now: pd.DataFrame, then: pd.DataFrame, classes: Classes, metric: str) -> dict[str, float | None]:
    now_and_then = [labels_and_predictions(rows, "outcome", classes) for rows in (now, then)]
    return performance_p_values(*now_and_then, classes, metric)


@pytest.mark.parametrize("metric", metrics_of("classification"))
def test_each_metric_of_classes_sees_scores_that_mean_less(metric):
    """Half of the outcomes shuffled: every metric is worse, no chance; the other way round it is not."""
    random = np.random.default_rng(2)
    then, now = world(3000, random), world(3000, random)
    mixed = now["outcome"].to_numpy().copy()
    mixed[:1500] = random.permutation(mixed[:1500])
    blurred = now.assign(outcome=mixed)
    assert chances_of(blurred, then, DEFAULT_CLASSES, metric)["performance"] < 0.01
    assert chances_of(then, blurred, DEFAULT_CLASSES, metric)["performance"] > 0.9


@pytest.mark.parametrize("metric", ["auc", "log_loss", "accuracy", "macro_f1"])  # one of each way of telling
def test_each_metric_of_three_classes_sees_scores_that_mean_less(metric):
    """As of two; and where nothing has changed, none sees a change."""
    random = np.random.default_rng(3)
    then, now, alike = (three(rows, random) for rows in (1500, 1500, 1500))
    mixed = now["outcome"].to_numpy().copy()
    mixed[:750] = random.permutation(mixed[:750])
    blurred = now.assign(outcome=mixed)
    assert chances_of(blurred, then, THREE, metric)["performance"] <= 0.001
    assert chances_of(then, blurred, THREE, metric)["performance"] > 0.9
    assert chances_of(alike, then, THREE, metric)["performance"] > 0.01


def test_a_bias_of_one_class_of_three_is_no_chance():
    """A class that became more frequent than is predicted; where nothing has changed there is none."""
    random = np.random.default_rng(4)
    then, now = three(1500, random), three(1500, random)
    more = now.assign(outcome=np.where(random.random(1500) < 0.2, "a", now["outcome"]))
    assert chances_of(more, then, THREE, "log_loss")["bias"] < 0.001
    assert chances_of(now, then, THREE, "log_loss")["bias"] > 0.01


def three(rows: int, random: np.random.Generator) -> pd.DataFrame:
    """Rows of three classes whose probabilities are right."""
    p = random.dirichlet([1, 1, 1], rows)
    number = (random.random(rows)[:, None] > p.cumsum(axis=1)).sum(axis=1)
    return pd.DataFrame(prediction_columns(p, THREE)).assign(outcome=np.array(THREE)[number])


@pytest.mark.parametrize("metric", ["mae", "rmse", "r2"])
def test_each_metric_of_numbers_sees_larger_errors(metric):
    """Errors half as large again are no chance; errors as ever are."""
    random = np.random.default_rng(3)

    def side(spread: float) -> pd.DataFrame:
        outcome = random.normal(size=2000)
        return pd.DataFrame({"outcome": outcome, "prediction": outcome + spread * random.normal(size=2000)})

    then = side(0.5)
    assert chances_of(side(0.75), then, (), metric)["performance"] < 0.001
    assert chances_of(side(0.5), then, (), metric)["performance"] > 0.01
    assert chances_of(side(0.5).eval("prediction = prediction + 0.1"), then, (), metric)["bias"] < 0.001
