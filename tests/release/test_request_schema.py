"""What a sealed release takes follows its training data: gaps, booleans, long texts, and the source's columns."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tasks.data.results import Snapshot
from tasks.features.results import Column
from tasks.release.request_schema import request_schema
from tasks.train.config import Split, Target, Train
from tasks.train.results import Candidate
from tasks.train.tabular.fit import fit
from tasks.train.tabular.model_file import load
from tasks.train.tabular.pipeline import build_pipeline

NAMES = ("size", "age", "gold", "story")
COLUMNS = tuple(Column(name=n, kind="text" if n == "story" else "number", origin="request") for n in NAMES)
ENCODER = {"columns": ("story",), "family": "sklearn.preprocessing.OneHotEncoder"}


@pytest.fixture
def frame(tmp_path: Path) -> Path:
    """Sixty rows; only `age` has a gap, and one story is long."""
    rows = pd.DataFrame(
        {
            "example_id": [str(i) for i in range(60)],
            "size": [float(i) for i in range(60)],
            "age": [None if i == 7 else float(i % 9) for i in range(60)],
            "gold": [float(i % 2) for i in range(60)],
            "story": ["a" * 1300 if i == 3 else "short" for i in range(60)],
            "spend": [float(3 * i) for i in range(60)],
        }
    )
    rows.to_parquet(tmp_path / "frame.parquet", index=False)
    return tmp_path / "frame.parquet"


def described(candidate: Candidate, frame: Path, family: str, *imputers: dict[str, Any]) -> dict[str, Any]:
    """The columns' descriptions by name, of a model of that family."""
    target = Target(column="spend", task="regression")
    config = Train.model_validate(
        {"family": family, "encoders": (ENCODER, *imputers), "split": Split(by="hash", share=0.2).model_dump()}
    )
    model = fit(build_pipeline(config, target.task, COLUMNS), pd.read_parquet(frame), target, config, COLUMNS)
    columns = request_schema(candidate.model_copy(update={"columns": COLUMNS, "frame": frame}), model, None)["columns"]
    return {column["name"]: column for column in columns}


def test_gaps_are_taken_where_the_pipeline_takes_them(candidate: Candidate, frame: Path) -> None:
    """Kind of row 40: all by boosting; by a linear model those that training had or an imputer fills."""
    boosting = described(candidate, frame, "sklearn.ensemble.HistGradientBoostingRegressor")
    assert [column["nullable"] for column in boosting.values()] == [True] * 4
    imputer = {"columns": ("age",), "family": "sklearn.impute.SimpleImputer"}
    linear = described(candidate, frame, "sklearn.linear_model.Ridge", imputer)
    assert {name for name in NAMES if linear[name]["nullable"]} == {"age", "story"}


def test_booleans_and_long_texts_are_recognised(candidate: Candidate, frame: Path) -> None:
    """Kinds of rows 19 and 9: only 0 and 1, and a limit of twice the longest text, at least 1,000 characters."""
    columns = described(candidate, frame, "sklearn.ensemble.HistGradientBoostingRegressor")
    assert [columns[name]["boolean"] for name in ("size", "age", "gold")] == [False, False, True]
    assert columns["story"]["max_length"] == 2600


def test_other_columns_of_the_source_are_ignored(candidate: Candidate, frame: Path, tmp_path: Path) -> None:
    """Kind of row 40: key, target and left-out columns of the file; features and the id are not among them."""
    (tmp_path / "snapshot" / "shop").mkdir(parents=True)
    table = pd.DataFrame({"customer": ["a"], "size": [1.0], "phone": ["0"], "spend": [3.0]})
    table.to_parquet(tmp_path / "snapshot" / "shop" / "all.parquet", index=False)
    snapshot = Snapshot(
        case="shop",
        as_of=datetime(2026, 1, 1, tzinfo=UTC),
        digest="abc.dir",
        path=tmp_path / "snapshot",
        rows={"shop": 1},
        quarantined={},
        docs={},
    )
    ignored = request_schema(candidate, load(candidate.folder / "model.skops"), snapshot)["ignored"]
    assert ignored == ["customer", "event_timestamp", "late", "phone", "size", "spend"]
