"""The champion calibrated anew: it ranks as before, is right on average, and is taken like a model from outside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from tasks.core.errors import CaseError
from tasks.core.files import file_digest
from tasks.features.results import Frame
from tasks.monitor.config import Monitor, check_monitor
from tasks.monitor.tabular.recalibrate import recalibrate
from tasks.train.config import Split, Train
from tasks.train.metrics import compute_metrics
from tasks.train.tabular.imported import import_model
from tasks.train.tabular.model_file import load, predict
from tests.monitor.small import CLASSIFICATION, COLUMNS, START, world
from tests.train.frames import origin_of

SPLIT = Split(by="time", holdout=timedelta(days=7))
TRAIN = Train(family="sklearn.linear_model.LogisticRegression", split=SPLIT)


def test_scores_too_low_are_calibrated_on_earlier_rows_and_right_on_later_ones(release: Path, tmp_path: Path) -> None:
    """The hold-out that the gates judge on is not fitted on; the file is of allowed types and becomes a candidate."""
    rows = world(4000, 31, level=0.6)
    frame = framed(rows, tmp_path)
    path = recalibrate(release / "model.skops", frame, START, CLASSIFICATION, SPLIT, tmp_path / "anew.skops")
    later = rows[rows["event_timestamp"] >= rows["event_timestamp"].max() - SPLIT.holdout]
    outcomes = later[CLASSIFICATION.column].to_numpy()
    before, after = (predict(load(model), later, COLUMNS) for model in (release / "model.skops", path))
    assert (before - outcomes).mean() < -0.06
    assert abs((after - outcomes).mean()) < 0.03
    was, now = (compute_metrics(outcomes, scores, "classification") for scores in (before, after))
    assert now["auc"] == pytest.approx(was["auc"], abs=1e-9)
    assert now["brier"] < was["brier"]

    spoilt = rows.copy()
    spoilt.loc[later.index, CLASSIFICATION.column] = 1 - outcomes
    other = framed(spoilt, tmp_path / "spoilt")
    recalibrate(release / "model.skops", other, START, CLASSIFICATION, SPLIT, tmp_path / "other.skops")
    assert file_digest(tmp_path / "other.skops") == file_digest(path), "the hold-out is not looked at"

    lineage = {"commit": "c", "dirty": "false", "lock_digest": "l", "case_digest": "d"}
    origin = origin_of("shop", tmp_path / "state", datetime(2013, 5, 1, tzinfo=UTC), lineage)
    candidate = import_model(origin, path, frame, CLASSIFICATION, TRAIN, ())
    assert candidate.imported == file_digest(path)


def framed(rows: pd.DataFrame, folder: Path) -> Frame:
    folder.mkdir(exist_ok=True)
    rows.to_parquet(folder / "frame.parquet", index=False)
    times = rows["event_timestamp"]
    return Frame(
        path=folder / "frame.parquet",
        data_digest="d" * 32,
        definitions_digest="f" * 64,
        rows=len(rows),
        columns=COLUMNS,
        start=times.min(),
        end=times.max(),
    )


def test_what_can_never_happen_is_refused() -> None:
    """A calibration after a retraining, of numbers, by a metric of another task, or more parts than there are."""
    watched = {"metric": "auc", "worse_by": 0.05, "bias": 0.05}
    with pytest.raises(ValidationError, match="must lie below"):
        Monitor.model_validate({"retrain": watched, "recalibrate": {"bias": 0.06}})
    with pytest.raises(ValidationError, match="at most all of them"):
        Monitor.model_validate({"retrain": {**watched, "needs": 3, "of": 2}})
    with pytest.raises(CaseError, match="no metric of this task, regression"):
        check_monitor(Monitor.model_validate({"retrain": watched}), "regression")
    numbers = {"retrain": {"metric": "rmse", "worse_by": 1}, "recalibrate": {"bias": 0.1}}
    with pytest.raises(CaseError, match="Only a classification"):
        check_monitor(Monitor.model_validate(numbers), "regression")
    calibrated = {"retrain": watched, "recalibrate": {"bias": 0.01}}
    with pytest.raises(CaseError, match="A table without time"):
        check_monitor(Monitor.model_validate(calibrated), "classification", has_time=False)
