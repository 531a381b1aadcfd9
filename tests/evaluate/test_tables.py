from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.evaluate.metrics import by_month, by_value
from tasks.statistics.metric_catalog import worse_by
from tasks.train.metrics import compute_metrics, losses


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    p = random.beta(2, 5, 1000)
    return (random.random(1000) < p).astype(float), p


def test_tables_measure_each_part_by_itself(scored: tuple[np.ndarray, np.ndarray]) -> None:
    """A slice's numbers are those of its rows alone; missing values are a slice too; no row is lost."""
    y, p = scored
    values = np.array(["b", "a", None, "c", "b"], dtype=object)[np.arange(1000) % 5]
    table = by_value(values, y, p, "classification")
    assert list(table) == ["a", "b", "c", "missing"]
    assert [found["rows"] for found in table.values()] == [200, 400, 200, 200]
    picked = values == "b"
    assert table["b"] == {"rows": 400, **compute_metrics(y[picked], p[picked], "classification")}


def test_months_are_those_of_utc(scored: tuple[np.ndarray, np.ndarray]) -> None:
    """An evening in New York belongs to the month that it has in UTC."""
    y, p = scored
    start = pd.Timestamp("2013-01-31 20:00", tz="America/New_York")
    times = pd.Series([start + pd.Timedelta(hours=h % 3000) for h in range(1000)])
    table = by_month(times, y, p, "classification")
    assert list(table) == ["2013-02", "2013-03"]
    assert sum(found["rows"] for found in table.values()) == 1000


def test_a_part_of_one_class_has_no_auc() -> None:
    """It is left out, not invented; the other metrics stay."""
    table = by_value(["x", "x", "y", "y"], np.array([0, 1, 0, 0]), np.array([0.2, 0.8, 0.1, 0.3]), "classification")
    assert table["x"]["auc"] == 1
    assert "auc" not in table["y"]
    assert table["y"]["brier"] == pytest.approx(0.05)


def test_worse_points_the_right_way() -> None:
    """Higher AUC is better, higher error is worse; losses are per example."""
    assert worse_by("auc", 0.6, than=0.7) == pytest.approx(0.1)
    assert worse_by("brier", 0.2, than=0.15) == pytest.approx(0.05)
    y, p = np.array([0.0, 2.0]), np.array([1.0, 5.0])
    assert losses("absolute_error", y, p).tolist() == [1, 3]
    assert losses("squared_error", y, p).tolist() == [1, 9]
