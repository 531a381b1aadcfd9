"""The predict package: each example once, whole files, the same after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from tasks.core.errors import Busy, DataError
from tasks.core.files import file_digest, lock
from tasks.predict.tabular import Predictor, predict, read_predictions
from tasks.train.tabular import model_file
from tests.predict.small import COLUMNS, RELEASE, examples, write_frame


def shop(model: Path) -> Predictor:
    return Predictor(RELEASE, "shop", model, COLUMNS)


def contents(folder: Path) -> dict[str, str]:
    """Every file under a folder with its digest."""
    return {str(path.relative_to(folder)): file_digest(path) for path in folder.rglob("*") if path.is_file()}


def test_partitions_hold_the_models_predictions(tmp_path, model, as_of):
    """Months of UTC, features as they were, and predictions equal to the model's own, to the last digit."""
    rows = examples(1000)
    predictions = predict(shop(model), write_frame(rows, tmp_path / "f.parquet"), as_of, tmp_path / "out", 64)

    assert (predictions.rows, predictions.written) == (1000, 1000)
    assert sorted({path.parent.name for path in predictions.paths}) == [
        "month=2013-01",
        "month=2013-02",
        "month=2013-03",
    ]
    rows_read = read_predictions(tmp_path / "out", "shop", RELEASE)
    pd.testing.assert_frame_equal(rows_read[["example_id", "size", "colour"]], rows[["example_id", "size", "colour"]])
    expected = model_file.predict(model_file.load(model), rows, COLUMNS)
    np.testing.assert_array_equal(rows_read["prediction"], expected)
    assert set(rows_read["release_digest"]) == {RELEASE}
    assert set(rows_read["as_of"]) == {pd.Timestamp(as_of)}

    by_pandas = pd.read_parquet(tmp_path / "out" / "shop")
    assert len(by_pandas) == 1000
    assert set(by_pandas["release"]) == {RELEASE[:12]}
    by_month = duckdb.sql(
        "SELECT month, count(*) FROM "
        f"read_parquet('{tmp_path}/out/*/*/*/*.parquet', hive_partitioning = true) GROUP BY 1"
    ).fetchall()
    assert sum(count for _, count in by_month) == 1000


def test_a_second_run_changes_nothing(tmp_path, model, as_of):
    """Running again writes no row and touches no file."""
    frame = write_frame(examples(300), tmp_path / "f.parquet")
    first = predict(shop(model), frame, as_of, tmp_path / "out")
    before = contents(first.folder)
    second = predict(shop(model), frame, as_of, tmp_path / "out")

    assert (second.rows, second.written) == (300, 0)
    assert contents(first.folder) == before
    assert second.digest == first.digest


def test_an_overlapping_window_adds_only_new_rows(tmp_path, model, as_of):
    """Later, with some examples seen before: each is there once, and existing predictions stay."""
    early = examples(300, days=60)
    predict(shop(model), write_frame(early, tmp_path / "a.parquet"), as_of, tmp_path / "out")
    later = pd.concat([early.tail(100), examples(50, "2013-03-20", 9, first_id=1000)]).assign(size=0.0)
    frame, may = write_frame(later, tmp_path / "b.parquet"), datetime(2013, 5, 1, tzinfo=UTC)
    predictions = predict(shop(model), frame, may, tmp_path / "out")

    rows_read = read_predictions(tmp_path / "out", "shop", RELEASE)
    assert (predictions.rows, predictions.written) == (150, 50)
    assert len(rows_read) == 350
    assert rows_read["example_id"].is_unique
    pd.testing.assert_series_equal(rows_read["size"].head(300), early["size"])
    window = read_predictions(tmp_path / "out", "shop", RELEASE, datetime(2013, 3, 20, tzinfo=UTC))
    assert len(window) == 50

    predict(Predictor("f" * 64, "shop", model, COLUMNS), frame, may, tmp_path / "out")
    assert len(read_predictions(tmp_path / "out", "shop", "f" * 64)) == 150, "another release answers for itself"


KILLED = """
from datetime import UTC, datetime
from pathlib import Path
from tasks.predict.tabular import Predictor, predict
from tests.predict.small import COLUMNS, RELEASE, examples, write_frame
folder = Path({folder!r})
frame = write_frame(examples(1800), folder / "killed.parquet")
predictor = Predictor(RELEASE, "shop", Path({model!r}), COLUMNS)
predict(predictor, frame, datetime(2013, 4, 1, tzinfo=UTC), folder / "killed", 25)
"""


def test_a_killed_run_ends_as_an_undisturbed_one(tmp_path, model, as_of):
    """kill -9 while the second month is being written: no half file is read, and the end is the same, byte by byte."""
    script = KILLED.format(folder=str(tmp_path), model=str(model))
    process = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    folder = tmp_path / "killed" / "shop" / f"release={RELEASE[:12]}"
    deadline = time.monotonic() + 60
    while not (list(folder.glob("*/part-*")) and list(folder.glob("*/.*.tmp"))):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    half = read_predictions(tmp_path / "killed", "shop", RELEASE)
    assert 0 < len(half) < 1800
    assert list(folder.glob("*/.*.tmp")), "the kill left its unfinished file behind"

    frame = write_frame(examples(1800), tmp_path / "whole.parquet")
    resumed = predict(shop(model), frame, as_of, tmp_path / "killed", 25)
    undisturbed = predict(shop(model), frame, as_of, tmp_path / "whole", 25)

    assert resumed.written == 1800 - len(half)
    assert contents(resumed.folder) == contents(undisturbed.folder)
    assert resumed.digest == undisturbed.digest


def test_months_are_those_of_utc(tmp_path, model, monkeypatch):
    """New Year's Eve in New York is January in UTC, wherever the process runs and whatever zone the file names."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        rows = examples(10, "2014-01-01T01:00", 0.01)
        rows["event_timestamp"] = (
            rows["event_timestamp"].dt.tz_convert("America/New_York").astype("datetime64[ns, America/New_York]")
        )
        frame = write_frame(rows, tmp_path / "f.parquet")
        predictions = predict(shop(model), frame, datetime(2014, 2, 1, tzinfo=UTC), tmp_path / "out")
        rows_read = read_predictions(tmp_path / "out", "shop", RELEASE, datetime(2014, 1, 1, tzinfo=UTC))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert [path.parent.name for path in predictions.paths] == ["month=2014-01"]
    assert rows_read["event_timestamp"].iloc[0] == pd.Timestamp("2014-01-01T01:00", tz="UTC")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: rows.assign(example_id="same"), "more than one example"),
        (lambda rows: rows.drop(columns="colour"), "lacks features"),
        (lambda rows: rows.assign(event_timestamp=rows["event_timestamp"] + pd.Timedelta(days=90)), "lies after"),
    ],
)
def test_bad_frames_write_nothing(tmp_path, model, as_of, spoil, message):
    """A repeated id, a missing feature or a future example is refused before a row is written."""
    frame = write_frame(spoil(examples(100)), tmp_path / "f.parquet")
    with pytest.raises(DataError, match=message):
        predict(shop(model), frame, as_of, tmp_path / "out")
    assert not (tmp_path / "out" / "shop").exists()


def test_one_writer_at_a_time(tmp_path, model, as_of):
    """A second writer of the same release is refused; reading where nothing was predicted says so."""
    frame = write_frame(examples(50), tmp_path / "f.parquet")
    with lock(tmp_path / "out" / ".work" / f"shop-{RELEASE[:12]}.lock", "the test"), pytest.raises(DataError):
        read_predictions(tmp_path / "out", "shop", RELEASE)
    script = (
        "import sys, fcntl, time; f = open(sys.argv[1], 'a+'); fcntl.flock(f, fcntl.LOCK_EX); print(1, flush=True); "
        "time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "out" / ".work" / f"shop-{RELEASE[:12]}.lock")],
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(Busy):
            predict(shop(model), frame, as_of, tmp_path / "out")
    finally:
        holder.kill()
        holder.wait()
    assert predict(shop(model), frame, as_of, tmp_path / "out").written == 50
