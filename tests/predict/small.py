"""A small model, and frames of examples that it can score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tasks.features.results import Column, Frame

COLUMNS = (
    Column(name="size", kind="number", origin="request"),
    Column(name="colour", kind="text", origin="request"),
)
RELEASE = "0123456789abcdef" * 4


def examples(rows: int, start: str = "2013-01-10", days: float = 80, first_id: int = 0) -> pd.DataFrame:
    """Examples spread evenly over some days, their size sometimes empty."""
    random = np.random.default_rng(first_id)
    size = random.normal(size=rows)
    size[::17] = np.nan
    return pd.DataFrame(
        {
            "example_id": [f"e{first_id + i:06d}" for i in range(rows)],
            "event_timestamp": pd.Timestamp(start, tz="UTC") + pd.to_timedelta(np.linspace(0, days, rows), unit="D"),
            "size": size,
            "colour": random.choice(["red", "green", "blue"], rows),
            "bought": (random.random(rows) < 1 / (1 + np.exp(-np.nan_to_num(size)))).astype(float),
        }
    )


def write_frame(rows: pd.DataFrame, path: Path) -> Frame:
    rows.to_parquet(path, index=False)
    return Frame(
        path=path,
        data_digest="d" * 32,
        definitions_digest="f" * 64,
        rows=len(rows),
        columns=COLUMNS,
        start=rows["event_timestamp"].min(),
        end=rows["event_timestamp"].max(),
    )


def train_model(path: Path) -> Path:
    from tasks.train.config import Encoder, Split, Target, Train
    from tasks.train.tabular.fit import fit
    from tasks.train.tabular.model_file import save
    from tasks.train.tabular.pipeline import build_pipeline

    target = Target(column="bought", task="classification")
    config = Train(
        family="sklearn.linear_model.LogisticRegression",
        encoders=(
            Encoder(columns=("size",), family="sklearn.impute.SimpleImputer"),
            Encoder(columns=("colour",), family="sklearn.preprocessing.OneHotEncoder"),
        ),
        split=Split(by="hash", share=0.2),
    )
    save(fit(build_pipeline(config, target.task, COLUMNS), examples(500), target, config, COLUMNS), path)
    return path
