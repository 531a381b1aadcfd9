from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tasks.core.errors import DataError
from tasks.train.config import Split
from tasks.train.tabular.split import split_frame
from tests.train.frames import BY_HASH, BY_TIME, CLASSES, clients, frame_of


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return pd.read_parquet(frame_of(clients(), tmp_path_factory.mktemp("frame")).path)


@pytest.mark.parametrize("split", [BY_TIME, BY_HASH])
def test_every_example_is_on_one_side(table: pd.DataFrame, split: Split) -> None:
    """Nothing is lost, nothing is on both sides, and the order stays."""
    learn, held = split_frame(table, split, CLASSES)
    assert sorted([*learn.index, *held.index]) == list(table.index)
    assert learn.index.is_monotonic_increasing
    assert held.index.is_monotonic_increasing


def test_by_time_nothing_later_is_learnt_from(table: pd.DataFrame) -> None:
    """Nothing in training is as late as the hold-out's start, also when rows come in any order."""
    learn, held = split_frame(table.sample(frac=1, random_state=0), BY_TIME)
    assert learn["event_timestamp"].max() < held["event_timestamp"].min()
    assert held["event_timestamp"].min() >= table["event_timestamp"].max() - pd.Timedelta("21d")


def test_by_time_a_share_is_of_the_rows() -> None:
    """FAULTS 37, split by time: a fifth of the rows, not of the span that the rows crowd at the end of."""
    crowded = pd.DataFrame({"event_timestamp": pd.date_range("2013-01-01", periods=100, tz="UTC").repeat(5)})
    crowded.loc[100:, "event_timestamp"] = pd.Timestamp("2013-04-01", tz="UTC") + pd.to_timedelta(range(400), "min")
    learn, held = split_frame(crowded.sample(frac=1, random_state=0), Split(by="time", share=0.2))
    assert len(held) == 100
    assert learn["event_timestamp"].max() < held["event_timestamp"].min()
    days = pd.DataFrame({"event_timestamp": pd.date_range("2013-01-01", periods=4, tz="UTC").repeat([50, 20, 25, 5])})
    _, held = split_frame(days, Split(by="time", share=0.2))
    assert len(held) == 30, "whole days, nearest to the share"


def test_by_hash_an_example_keeps_its_side(table: pd.DataFrame) -> None:
    """A side depends on the id alone: other rows, their order and the process don't matter; the share is as asked."""
    _, held = split_frame(table, BY_HASH)
    _, fewer = split_frame(table.iloc[::-2], BY_HASH)
    assert set(fewer["example_id"]) == set(held["example_id"]) & set(table.iloc[::-2]["example_id"])
    assert 0.22 < len(held) / len(table) < 0.28
    code = "from tasks.train.tabular.split import hash_position; print(hash_position('client-1'), hash_position('Ünï'))"
    root = Path(__file__).parents[2]
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=root, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True
        )
        for seed in ("1", "2")
    ]
    assert outputs[0].stdout == outputs[1].stdout != ""


def test_a_side_that_is_empty_or_of_one_class_is_refused(table: pd.DataFrame) -> None:
    """The message names the side, what was found and what to change."""
    with pytest.raises(DataError, match="training side of the split is empty"):
        split_frame(table, Split(by="time", holdout="400d"))
    with pytest.raises(DataError, match="holdout side of the split is empty"):
        split_frame(table.head(3), Split(by="hash", share=0.001))
    with pytest.raises(DataError, match="is empty"):
        split_frame(table.head(0), BY_TIME)
    with pytest.raises(DataError, match="one class only"):
        split_frame(table.assign(target=0), BY_TIME, CLASSES)
    with pytest.raises(DataError, match="training side of the split is empty"):
        split_frame(table.assign(event_timestamp=table["event_timestamp"].min()), Split(by="time", share=0.2))


@pytest.mark.parametrize("wrong", [{}, {"holdout": "1d", "share": 0.2}, {"by": "hash", "holdout": "1d"}])
def test_a_split_has_one_size(wrong: dict[str, object]) -> None:
    """The message says which key belongs to which split."""
    with pytest.raises(ValueError, match=r"share \(such as 0.2\) or holdout"):
        Split.model_validate({"by": "time", **wrong})
