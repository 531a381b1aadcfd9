"""Frames of real data: clients of a bank (text, numbers, gaps), and scikit-learn's bundled tables."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.mlflow import Tracking
from tasks.core.settings import ROOT
from tasks.features.results import Column, Frame
from tasks.train.config import Encoder, Split, Target, Train
from tasks.train.results import Origin

AS_OF = datetime(2013, 4, 1, tzinfo=UTC)
LINEAGE = {"commit": "0" * 40, "lock_digest": "1" * 64, "case_digest": "2" * 64}
CLASSES = Target(column="target", task="classification")
VALUES = Target(column="target", task="regression")
BY_TIME = Split(by="time", holdout="21d")
BY_HASH = Split(by="hash", share=0.25)
TEXTS = ("sex", "education", "marriage")
WORDS = np.array([*["refund", "broken", "late", "great", "lovely", "quick", "fox", "over", "the", "dog"]], object)


def origin_of(case: str, state: Path, as_of: datetime = AS_OF, lineage: dict[str, str] = LINEAGE) -> Origin:
    return Origin(case=case, as_of=as_of, lineage=lineage, state=state, tracking=Tracking.in_folder(state))


def clients(rows: int = 3000) -> pd.DataFrame:
    """Clients of a bank with a default as target; every seventh credit limit and every eleventh marriage is missing."""
    table = pd.read_parquet(ROOT / "data/samples/credit_default.parquet").head(rows)
    table["target"] = table.pop("default_next_month").astype("int64")
    table["example_id"] = "client-" + table.pop("client_id").astype(str)
    table.loc[::7, "limit_bal"] = np.nan
    table.loc[::11, "marriage"] = None
    return table


def tumours() -> pd.DataFrame:
    from sklearn.datasets import load_breast_cancer

    return load_breast_cancer(as_frame=True).frame


def diabetes() -> pd.DataFrame:
    from sklearn.datasets import load_diabetes

    return load_diabetes(as_frame=True).frame


def wines(names: tuple[Any, ...] = ("barolo", "grignolino", "barbera")) -> pd.DataFrame:
    from sklearn.datasets import load_wine

    table = load_wine(as_frame=True).frame
    return table.assign(target=np.array(names)[table["target"]])


def orders(rows: int = 700) -> pd.DataFrame:
    """A number, a category, more towns than trees take, a date as text, a message that decides, and a twisted id."""
    random = np.random.default_rng(1)
    messages = [" ".join(random.choice(WORDS, 7)) for _ in range(rows)]
    table = pd.DataFrame(
        {
            "amount": random.gamma(2, 10, rows),
            "colour": random.choice(["red", "green", "blue"], rows).astype(object),
            "town": np.array([f"town {i}" for i in random.integers(0, 300, rows)], object),
            "bought": [f"2025-{m:02}-{d:02}" for m, d in random.integers(1, 13, (rows, 2))],
            "message": np.array(messages, object),
            "ticket": np.array([f"T{i:06}" for i in random.permutation(rows)], object),
        }
    )
    table["target"] = [int("refund" in text or "broken" in text) for text in messages]
    return table


def frame_of(table: pd.DataFrame, folder: Path, digest: str = "d" * 32) -> Frame:
    """Write a table as the features room would: ids and times added, 90 days of them."""
    table = table.rename(columns=lambda name: name.replace(" ", "_")).reset_index(drop=True)
    if "example_id" not in table:
        table["example_id"] = [f"row-{i:05d}" for i in range(len(table))]
    if "event_timestamp" not in table:
        table["event_timestamp"] = pd.date_range("2013-01-01", "2013-03-31", len(table), tz="UTC").as_unit("us")
    features = [name for name in table if name not in ("example_id", "event_timestamp", "target")]
    path = folder / f"{digest[:8]}-{len(table)}.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    table.to_parquet(path, index=False)
    return Frame(
        path=path,
        data_digest=digest,
        definitions_digest="e" * 64,
        rows=len(table),
        columns=tuple(
            Column(name=name, kind="text" if table[name].dtype == object else "number", origin="request")
            for name in features
        ),
        start=table["event_timestamp"].min().to_pydatetime(),
        end=table["event_timestamp"].max().to_pydatetime(),
    )


def boosting(texts: tuple[str, ...] = (), split: Split = BY_TIME, **more: Any) -> Train:
    """A small gradient boosting."""
    encoders = (Encoder(columns=texts, family="sklearn.preprocessing.OrdinalEncoder"),) if texts else ()
    return Train(
        family="sklearn.ensemble.HistGradientBoostingClassifier",
        parameters={"max_iter": 30, **more},
        encoders=encoders,
        split=split,
        threads=1,
    )


def logistic(numbers: tuple[str, ...], texts: tuple[str, ...], split: Split = BY_TIME) -> Train:
    """A linear model with everything it needs before it."""
    return Train(
        family="sklearn.linear_model.LogisticRegression",
        parameters={"max_iter": 500},
        encoders=(
            Encoder(columns=numbers, family="sklearn.impute.SimpleImputer", parameters={"strategy": "median"}),
            Encoder(columns=numbers, family="sklearn.preprocessing.StandardScaler"),
            Encoder(columns=texts, family="sklearn.preprocessing.OneHotEncoder"),
        ),
        split=split,
        threads=1,
    )
