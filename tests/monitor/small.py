"""A small world with a known concept, a release trained on it, and months in which something happens to it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
import pandas as pd

from tasks.core.mlflow import Tracking
from tasks.core.places import Places
from tasks.evaluate.config import ChampionGate, Fairness
from tasks.features.results import Column, Frame
from tasks.monitor.config import Monitor, TabularSpec
from tasks.monitor.results import Signal
from tasks.monitor.signal import Window, WindowData
from tasks.monitor.tabular.measure import measure
from tasks.predict.tabular import Predictor, predict
from tasks.release.results import Release
from tasks.train.config import Target

RELEASE = "ab" * 32
NUMBERS = ("age", "income", "noise_1", "noise_2", "noise_3", "noise_4")
COLUMNS = (
    *(Column(name=name, kind="number", origin="request") for name in NUMBERS),
    Column(name="town", kind="text", origin="request"),
)
START, END = datetime(2013, 4, 1, tzinfo=UTC), datetime(2013, 5, 1, tzinfo=UTC)
CLASSIFICATION = Target(column="outcome_known", task="classification")
REGRESSION = Target(column="outcome_known", task="regression")
WATCHED = Monitor.model_validate(
    {"retrain": {"metric": "auc", "worse_by": 0.05, "bias": 0.06}, "min_rows": 400, "sample": 1000}
)
WATCHED_REGRESSION = Monitor.model_validate(
    {"retrain": {"metric": "rmse", "worse_by": 0.3, "bias": 0.1}, "min_rows": 400, "sample": 1000}
)


class Change(TypedDict, total=False):
    """What differs from an ordinary month: the concept (age, level), or the inputs alone (older, spread)."""

    age: float  # how much the outcome grows with age; 1.5
    level: float  # added to every score; 0
    older: float  # added to age; 0
    spread: float  # factor of age and income; 1


def world(rows: int, seed: int, task: str = "classification", **change: Unpack[Change]) -> pd.DataFrame:
    """Examples whose outcome grows with age and income; noise and town say nothing."""
    age, level = change.get("age", 1.5), change.get("level", 0.0)
    older, spread = change.get("older", 0.0), change.get("spread", 1.0)
    random = np.random.default_rng(seed)
    table = pd.DataFrame({name: random.normal(size=rows) for name in NUMBERS})
    table["age"] = spread * table["age"] + older
    table["income"] *= spread
    table["town"] = random.choice(["Bath", "York", "Ely"], rows)
    score = age * table["age"] + table["income"] + level
    chance = random.random(rows) < 1 / (1 + np.exp(-score))
    table["outcome_known"] = chance.astype(float) if task == "classification" else 10 + score + random.normal(size=rows)
    table["example_id"] = [f"{seed}-{i:05d}" for i in range(rows)]
    table["event_timestamp"] = pd.date_range(START, END, periods=rows + 1)[:-1].as_unit("us")
    return table


def three(rows: int, seed: int, **change: Unpack[Change]) -> pd.DataFrame:
    """The same world, in which the outcome is one of three words."""
    table = world(rows, seed, "regression", **change)
    return table.assign(outcome_known=np.array(["low", "middle", "high"])[np.digitize(table["outcome_known"], [9, 11])])


def make_release(folder: Path, target: Target, make: Callable[[int, int], pd.DataFrame] | None = None) -> Path:
    """Train and score a hold-out, as the rooms before this one do."""
    from tasks.train.classes import prediction_columns
    from tasks.train.config import Encoder, Split, Train
    from tasks.train.tabular.fit import fit
    from tasks.train.tabular.model_file import predict as score
    from tasks.train.tabular.model_file import save
    from tasks.train.tabular.pipeline import build_pipeline

    families = {"classification": "LogisticRegression", "regression": "LinearRegression"}
    config = Train(
        family=f"sklearn.linear_model.{families[target.task]}",
        encoders=(Encoder(columns=("town",), family="sklearn.preprocessing.OneHotEncoder"),),
        split=Split(by="hash", share=0.2),
    )
    make = make or partial(world, task=target.task)
    model = fit(build_pipeline(config, target.task, COLUMNS), make(4000, 1), target, config, COLUMNS)
    held = make(2000, 2)
    folder.mkdir(parents=True)
    save(model, folder / "model.skops")
    held.assign(**prediction_columns(score(model, held, COLUMNS), model.classes)).to_parquet(folder / "scores.parquet")
    return folder


def sealed_release(folder: Path) -> Release:
    """The release of the shop whose model lies in a folder."""
    return Release(
        case="shop",
        digest=RELEASE,
        as_of=START,
        folder=folder,
        bento="shop:1",
        version="1",
        run_id="r",
        kind="tabular",
        columns=COLUMNS,
    )


def watch(
    rows: pd.DataFrame,
    release: Path,
    place: Path,
    target: Target = CLASSIFICATION,
    config: Monitor = WATCHED,
    fairness: Fairness | None = None,
) -> Signal:
    """Predict these examples, and measure what became of them."""
    place.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(place / "frame.parquet", index=False)
    frame = Frame(
        path=place / "frame.parquet",
        data_digest="d" * 32,
        definitions_digest="f" * 64,
        rows=len(rows),
        columns=COLUMNS,
        start=rows["event_timestamp"].min(),
        end=rows["event_timestamp"].max(),
    )
    predict(Predictor(RELEASE, "shop", release / "model.skops", COLUMNS), frame, END, place / "predictions")
    places = Places(place / "state", Tracking.in_folder(place / "state"), place)
    gate = ChampionGate(loss="brier" if target.task == "classification" else "squared_error")
    window = Window("shop", RELEASE, END, START, END)
    spec = TabularSpec(target, config, gate, fairness)
    return measure(sealed_release(release), spec, window, WindowData(frame.path), places)
