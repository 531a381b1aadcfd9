"""Intervals of metrics cover the truth as often as they promise, and shrink with the rows."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.monitor.tabular.intervals import metric_intervals
from tasks.train.metrics import compute_metrics


def sample(rows: int, seed: int, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes that follow from calibrated scores."""
    random = np.random.default_rng(seed)
    if classes == 2:
        p = random.beta(1, 2, rows)
        return (random.random(rows) < p).astype(float), p
    p = random.dirichlet(np.ones(classes), rows)
    y = (p.cumsum(axis=1) > random.random(rows)[:, None]).argmax(axis=1)
    return y.astype(float), p


@pytest.mark.parametrize("classes", [2, 3])
def test_intervals_cover_what_many_rows_show(classes: int):
    """Of 60 samples nearly all hold the value of 100,000 rows: every metric of classification."""
    truth = compute_metrics(*sample(100_000, 0, classes), "classification")
    covered: dict[str, list[bool]] = {}
    for seed in range(1, 61):
        side = sample(400, seed, classes)
        metrics = compute_metrics(*side, "classification")
        metrics.pop("calibration_error")  # biased upwards in small samples: its interval is about the sample's own
        for name, (low, high) in metric_intervals(side, metrics, classification=True).items():
            assert low < metrics[name] < high
            covered.setdefault(name, []).append(low <= truth[name] <= high)
    assert covered.keys() == truth.keys() - {"calibration_error"}
    assert all(np.mean(hits) > 0.85 for hits in covered.values()), {n: np.mean(h) for n, h in covered.items()}


def test_intervals_of_a_regression_and_of_few_rows():
    """Four times the rows, half the width, also beyond the rows that are resampled; too few rows have none."""
    random = np.random.default_rng(5)

    def widths(rows: int) -> dict[str, float]:
        y = random.normal(size=rows)
        side = y, y + random.normal(size=rows)
        intervals = metric_intervals(side, compute_metrics(*side, "regression"), classification=False)
        return {name: high - low for name, (low, high) in intervals.items()}

    few, many, most = widths(1_000), widths(16_000), widths(64_000)
    assert few.keys() == {"rmse", "mae", "r2"}
    for name in few:
        assert 2.5 < few[name] / many[name] < 6
        assert 1.4 < many[name] / most[name] < 3
    assert metric_intervals((np.zeros(9), np.zeros(9)), {"rmse": 0.0}, classification=False) == {}
