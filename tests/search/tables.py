"""A small table to search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tasks.features.results import Column, Frame
from tasks.search.config import Search
from tasks.search.tabular.problem import TabularProblem
from tasks.train.config import Split, Target, Train

BY_TIME = Split(by="time", share=0.2)
START = pd.Timestamp("2026-01-01", tz="UTC")
FAMILY = "sklearn.linear_model.LogisticRegression"


def small_frame(folder: Path, rows: int = 600) -> Frame:
    """Rows of two numbers and a category, a target of two classes."""
    random = np.random.default_rng(0)
    first, second = random.normal(size=rows), random.normal(size=rows)
    kind = random.choice(["a", "b", "c"], rows)
    late = (first * second + (kind == "a") + random.normal(size=rows) > 0.3).astype(int)
    table = pd.DataFrame(
        {
            "example_id": [f"e{k:05d}" for k in range(rows)],
            "event_timestamp": START + pd.to_timedelta(np.arange(rows), "h"),
            "first": first,
            "second": second,
            "kind": kind,
            "late": late,
        }
    )
    return write_frame(table, folder)


def write_frame(table: pd.DataFrame, folder: Path) -> Frame:
    path = folder / "frame.parquet"
    table.to_parquet(path, index=False)
    columns = [
        Column(name=name, kind="text" if table[name].dtype == object else "number", origin="request")
        for name in table.columns
        if name not in ("example_id", "event_timestamp", "late")
    ]
    times = table["event_timestamp"]
    return Frame(
        path=path,
        data_digest="d" * 64,
        definitions_digest="f" * 64,
        rows=len(table),
        columns=tuple(columns),
        start=times.min().to_pydatetime(),
        end=times.max().to_pydatetime(),
    )


def problem(frame: Frame, settings: Search | None = None, split: Split = BY_TIME) -> TabularProblem:
    """A case with a linear model, which products of columns and trees beat."""
    encoder = {"columns": ["kind"], "family": "sklearn.preprocessing.OneHotEncoder"}
    train = Train(family=FAMILY, encoders=[encoder], split=split)
    target = Target(column="late", task="classification")
    found = settings or Search(families=("boosting", "linear"))
    return TabularProblem("small", frame, target, train, found, "auc", None, workers=2)
