"""A small world with a real trained model: text, numbers, missing values, two views; and a release made of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from services.serving.package import package
from tasks.core.mlflow import Tracking
from tasks.core.settings import ROOT
from tasks.evaluate.results import Criterion, Verdict
from tasks.features.results import Column, Frame
from tasks.release.results import SealContext
from tasks.release.seal import seal
from tasks.release.tabular import tabular_parts
from tasks.train.config import Encoder, Split, Target, Train
from tasks.train.results import Candidate
from tasks.train.tabular.fit import train
from tasks.train.tabular.model_file import load, predict
from tasks.train.tabular.split import split_frame
from tests.train.frames import origin_of

AS_OF = datetime(2013, 4, 1, tzinfo=UTC)
COLUMNS = (
    Column(name="carrier", kind="text", origin="request"),
    Column(name="distance", kind="number", origin="request"),
    Column(name="tail_age", kind="number", origin="request"),  # has missing values
    Column(name="carrier_late", kind="number", origin="carrier_day", entities=("carrier",)),
    Column(name="carrier_flights", kind="number", origin="carrier_day", entities=("carrier",)),
    Column(name="wind", kind="number", origin="weather", entities=("origin",)),
)
TARGET = Target(column="late", task="classification")
LINEAGE = {"commit": "0" * 40, "dirty": "false", "lock_digest": "1" * 64, "case_digest": "2" * 64}


def make_frame(path: Path, rows: int = 1500) -> pd.DataFrame:
    random = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "example_id": [f"flight-{i:05d}" for i in range(rows)],
            "event_timestamp": pd.date_range("2013-01-01", periods=rows, freq="h", tz="UTC"),
            "carrier": random.choice(["UA", "AA", "B6", "Ünï"], rows),
            "origin": random.choice(["EWR", "JFK"], rows),
            "distance": random.integers(100, 3000, rows),
            "tail_age": np.where(random.random(rows) < 0.2, np.nan, random.random(rows) * 30),
            "carrier_late": np.where(random.random(rows) < 0.1, np.nan, random.random(rows)),
            "carrier_flights": random.integers(1, 400, rows).astype(float),
            "wind": random.random(rows) * 40,
        }
    )
    score = 2 * frame["carrier_late"].fillna(0.3) + frame["wind"] / 40 + random.normal(0, 0.5, rows)
    frame["late"] = (score > 1.5).astype(int)
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False)
    return frame


def make_candidate(state: Path, seed: int = 0, case: str = "small") -> Candidate:
    """Train for real, and score the hold-out as the evaluate package does."""
    path = state / "frame.parquet"
    frame = make_frame(path)
    config = Train(
        family="sklearn.ensemble.HistGradientBoostingClassifier",
        parameters={"max_iter": 20, "learning_rate": 0.1 + seed / 100},
        encoders=(Encoder(columns=("carrier",), family="sklearn.preprocessing.OrdinalEncoder"),),
        split=Split(by="time", holdout=timedelta(days=12)),
        seed=seed,
        threads=1,
    )
    features = Frame(
        path=path,
        data_digest="abc.dir",
        definitions_digest="3" * 64,
        rows=len(frame),
        columns=COLUMNS,
        start=frame["event_timestamp"].min(),
        end=frame["event_timestamp"].max(),
    )
    candidate = train(origin_of(case, state, AS_OF, LINEAGE), features, TARGET, config)
    held = split_frame(frame, config.split)[1].copy()
    held["prediction"] = predict(load(candidate.folder / "model.skops"), held)
    held.to_parquet(scores_of(candidate), index=False)
    return candidate


def scores_of(candidate: Candidate) -> Path:
    return candidate.folder.with_name(f"{candidate.folder.name}-scores.parquet")


def make_verdict(candidate: Candidate, ms_per_row: float = 0.01, decision: str = "promote") -> Verdict:
    return Verdict.model_validate(
        {
            "decision": decision,
            "criteria": (
                Criterion(name="auc", observed=0.71, required=">= 0.6", passed=True),
                Criterion(name="ms_per_row", observed=ms_per_row, required="<= 1", passed=True, repeatable=False),
            ),
            "metrics": {"overall": {"auc": 0.71}},
            "champion": None,
            "scores": scores_of(candidate),
            "digest": "4" * 64,
        }
    )


def seal_table(candidate: Candidate, verdict: Verdict, lineage: dict[str, str], state: Path, **more: Any) -> Path:
    context = SealContext(lineage=lineage, state=state, **more)
    return seal(candidate, verdict, tabular_parts(candidate, verdict, TARGET), context)


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder of its own for a sealed release and its Bento; shared by all tests."""
    state = tmp_path_factory.getbasetemp() / "released"
    state.mkdir(exist_ok=True)
    return state


@pytest.fixture(scope="session")
def tracking(state: Path) -> Tracking:
    return Tracking.in_folder(state)


@pytest.fixture(scope="session")
def candidate(state: Path) -> Candidate:
    return make_candidate(state)


@pytest.fixture(scope="session")
def folder(state: Path, candidate: Candidate) -> Path:
    return seal_table(candidate, make_verdict(candidate), LINEAGE, state)


@pytest.fixture(scope="session")
def bento(state: Path, folder: Path) -> str:
    return package(folder, state / "bentoml", ROOT / "requirements.lock")


@pytest.fixture(scope="session")
def second(state: Path) -> Path:
    """Another release of the same case, packaged."""
    other = make_candidate(state, seed=1)
    folder = seal_table(other, make_verdict(other), LINEAGE, state)
    package(folder, state / "bentoml", ROOT / "requirements.lock")
    return folder


@pytest.fixture(scope="session")
def environment(state: Path) -> dict[str, str]:
    return {"BENTOML_HOME": str(state / "bentoml"), "BENTOML_DO_NOT_TRACK": "True", "OMP_NUM_THREADS": "1"}
