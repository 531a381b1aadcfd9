"""How good a release was in a month, and what a policy gained."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.backtest.score import gain, score
from tasks.core.errors import DataError
from tasks.core.mlflow import Tracking
from tasks.core.places import Places
from tasks.monitor.signal import Window
from tasks.train.classes import DEFAULT_CLASSES
from tasks.train.config import Target

RELEASE = "ab" * 32
START, END = datetime(2013, 4, 1, tzinfo=UTC), datetime(2013, 5, 1, tzinfo=UTC)
WINDOW = Window("case", RELEASE, END, START, END)
TARGET = Target(column="late", task="classification")


def places_in(folder: Path) -> Places:
    return Places(folder / "state", Tracking.in_folder(folder / "state"), folder)


def predicted(out: Path, probability: float, release: str = RELEASE, rows: int = 3000) -> pd.DataFrame:
    """Predictions of April and the days around it, and the same examples with what came of them."""
    times = pd.date_range("2013-03-20", "2013-05-10", periods=rows, tz="UTC").as_unit("us")
    table = pd.DataFrame({"example_id": [f"e{i:05d}" for i in range(rows)], "event_timestamp": times})
    folder = out / "case" / f"release={release[:12]}" / "month=all"
    folder.mkdir(parents=True)
    table.assign(prediction=probability).to_parquet(folder / "part-0.parquet")
    late = np.random.default_rng(0).random(rows) < 0.3
    return table.assign(late=np.where(times < pd.Timestamp("2013-04-30", tz="UTC"), late, np.nan))


def test_only_the_month_and_only_known_outcomes_count(tmp_path):
    """Rows of other months and rows without an outcome are left out; the metrics are those of the rest."""
    examples = predicted(tmp_path / "predictions", 0.5)
    examples.to_parquet(tmp_path / "examples.parquet")
    found = score(WINDOW, TARGET, DEFAULT_CLASSES, tmp_path / "examples.parquet", places_in(tmp_path))
    april = examples[(examples["event_timestamp"] >= START) & (examples["event_timestamp"] < END)]
    assert found.rows == april["late"].notna().sum() < len(april)
    assert found.metrics["brier"] == pytest.approx(0.25)
    table = pd.read_parquet(found.losses)
    assert list(table["example_id"]) == sorted(april[april["late"].notna()]["example_id"])
    assert table["loss"].mean() == pytest.approx(found.metrics["brier"])


def test_a_month_without_outcomes_says_so(tmp_path):
    """A replay beyond the data ends with a message that names the month."""
    predicted(tmp_path / "predictions", 0.5).assign(late=np.nan).to_parquet(tmp_path / "examples.parquet")
    with pytest.raises(DataError, match="No outcome of 2013-04"):
        score(WINDOW, TARGET, DEFAULT_CLASSES, tmp_path / "examples.parquet", places_in(tmp_path))


def losses(path: Path, values: np.ndarray, days: int) -> Path:
    ids = [f"e{i:05d}" for i in range(len(values))]
    day = [f"2013-04-{1 + i * days // len(values):02}" for i in range(len(values))]
    pd.DataFrame({"example_id": ids, "day": day, "loss": values}).to_parquet(path)
    return path


def test_a_gain_has_the_sign_of_what_is_better_and_an_interval(tmp_path):
    """Lower losses are a gain; its interval holds the mean, and a policy gains exactly nothing over itself."""
    noise = np.random.default_rng(0).random(3000)
    worse, better = (losses(tmp_path / f"{i}.parquet", noise + 0.01 * i, 30) for i in (1, 0))
    found = gain([better], [worse])
    assert found["mean"] == pytest.approx(0.01)
    assert found["low"] <= found["mean"] <= found["high"]
    assert gain([worse], [worse]) == {"mean": 0.0, "low": 0.0, "high": 0.0, "rows": 3000}


def test_days_are_resampled_not_rows(tmp_path):
    """Where all examples of a day gain or lose together, the interval is as wide as the days make it."""
    by_day = np.repeat(np.random.default_rng(0).normal(size=30), 100)
    base = losses(tmp_path / "base.parquet", np.zeros(3000), 30)
    together = gain([losses(tmp_path / "a.parquet", by_day, 30)], [base])
    independent = gain([losses(tmp_path / "b.parquet", np.random.default_rng(1).permutation(by_day), 30)], [base])
    assert together["high"] - together["low"] > 5 * (independent["high"] - independent["low"])


def test_too_few_days_give_no_interval_and_other_examples_no_gain(tmp_path):
    """Seven days can't be resampled to anything; losses of different examples are not compared."""
    few = losses(tmp_path / "few.parquet", np.random.default_rng(0).random(700), 7)
    assert gain([few], [few])["low"] is None
    with pytest.raises(ValueError, match="same examples"):
        gain([few], [losses(tmp_path / "other.parquet", np.zeros(800), 7)])
