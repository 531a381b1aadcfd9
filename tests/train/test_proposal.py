from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.features.results import Column
from tasks.train.config import Split, Target, Train
from tasks.train.tabular.column_roles import ColumnRole, column_roles
from tasks.train.tabular.default_models import Shape, tree_encoders
from tasks.train.tabular.fit import fit
from tasks.train.tabular.folds import comparison_folds, sample_rows
from tasks.train.tabular.pipeline import build_pipeline, check_training
from tasks.train.tabular.proposal import Proposal, propose_model
from tasks.train.tabular.scoring import predict
from tests.train.frames import BY_HASH, BY_TIME, CLASSES, VALUES, diabetes, frame_of, orders


def proposed(table: pd.DataFrame, folder: Path, target: Target, split: Split, **more: Any) -> Proposal:
    frame = frame_of(table, folder)
    return propose_model(pd.read_parquet(frame.path), target, split, columns=frame.columns, **more)


@pytest.fixture(scope="module")
def proposal(tmp_path_factory: pytest.TempPathFactory) -> Proposal:
    return proposed(orders(), tmp_path_factory.mktemp("orders"), CLASSES, BY_HASH)


def test_each_column_gets_the_role_that_it_has() -> None:
    """FAULTS 28, 36, 38: categories up to the limit and beyond, dates and texts are recognised by all rows."""
    table = orders()
    columns = [Column(name=n, kind="number" if n == "amount" else "text", origin="request") for n in table][:-1]
    table["event_timestamp"] = pd.Timestamp("2026-01-01", tz="UTC")
    roles = {column.name: column.role for column in column_roles(table, columns)}
    assert roles == {
        "amount": "number",
        "colour": "category",
        "town": "many_categories",
        "bought": "date",
        "message": "text",
        "ticket": "unique",
    }
    assert {c.name: c.role for c in column_roles(table, columns, text=["town"])}["town"] == "text"


def test_text_that_decides_is_learned_from(proposal: Proposal) -> None:
    """FAULTS 38: a text column is encoded by TF-IDF where it improves predictions; an id is left out, with a reason."""
    best = next(each for each in proposal.compared if each.name == proposal.chosen)
    without = next(each for each in proposal.compared if each.name.endswith("without message"))
    assert best.mean > without.mean + 0.2
    assert "distinct values" in proposal.left_out["ticket"]
    assert any(reason.startswith("message: text") for reason in proposal.reasons)


def test_the_train_section_is_valid_and_of_the_case_s_keys(proposal: Proposal) -> None:
    """What is written into case.yaml passes `validate` as it is."""
    columns = [
        Column(name=n, kind="number" if n == "amount" else "text", origin="request")
        for n in orders()
        if n not in ("target", *proposal.left_out)
    ]
    check_training(Train(**proposal.train, split=BY_HASH), "classification", columns)


def test_text_without_a_use_is_left_out(tmp_path: Path) -> None:
    """FAULTS 38: text that improves nothing is no feature of the case."""
    table = orders()
    table["target"] = (table["amount"] > 18).astype(int)
    proposal = proposed(table.drop(columns=["town", "ticket", "bought"]), tmp_path, CLASSES, BY_HASH)
    assert "message" in proposal.left_out
    assert "message" not in str(proposal.train)


def test_the_dummy_and_a_linear_model_are_compared(tmp_path: Path) -> None:
    """A small table of numbers is no case for trees; equal rows give an equal proposal, and no hold-out row counts."""
    first = proposed(diabetes(), tmp_path, VALUES, BY_TIME)
    assert first.chosen == "linear"
    assert {each.name for each in first.compared} == {"boosting", "slow boosting", "linear", "dummy"}
    changed = diabetes()
    last = changed.index[-90:]
    changed.loc[last, "target"] = 1e6
    assert proposed(changed, tmp_path, VALUES, BY_TIME).train == first.train


def test_a_skewed_target_gets_other_losses(tmp_path: Path) -> None:
    """FAULTS 43: a gamma loss and log1p are compared, in the target's unit."""
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 1500))
    table = pd.DataFrame({"a": a, "b": b, "target": np.exp(2 * a + b + random.normal(size=1500) / 4)})
    proposal = proposed(table, tmp_path, VALUES, BY_HASH)
    errors = {each.name: each.tie_breaker for each in proposal.compared}
    assert {"slow boosting, gamma loss", "slow boosting of log1p"} <= errors.keys()
    assert errors["slow boosting of log1p"] < errors["boosting"]


def test_a_rare_class_is_in_each_fold(tmp_path: Path) -> None:
    """FAULTS 29: folds deal out each class, and a sample keeps a rare class whole."""
    table = pd.DataFrame({"a": np.arange(4000.0), "target": np.where(np.arange(4000) % 400 == 0, "rare", "usual")})
    rows = pd.read_parquet(frame_of(table, tmp_path).path)
    folds = comparison_folds(rows, BY_HASH, CLASSES)
    assert [int((test["target"] == "rare").sum()) for _, test in folds] == [2] * 5
    assert int((sample_rows(rows, CLASSES, 500)["target"] == "rare").sum()) == 10


def test_forward_folds_predict_later_rows_only(tmp_path: Path) -> None:
    """A case that is split by time is compared as it will be used."""
    rows = pd.read_parquet(frame_of(diabetes(), tmp_path).path)
    folds = comparison_folds(rows, BY_TIME, VALUES)
    assert len(folds) == 5
    assert all(train["event_timestamp"].max() < test["event_timestamp"].min() for train, test in folds)


def test_what_comes_once_is_not_learned_of_a_moment(tmp_path: Path) -> None:
    """FAULTS 36: of a row's own moment only weekday and hour count; of another date its age does, too."""
    random = np.random.default_rng(5)
    at = pd.date_range("2025-01-01", periods=600, freq="3h", tz="UTC").as_unit("us")
    born = [f"{year}-05-01" for year in random.integers(1950, 2000, 600)]
    late = (at.dayofweek >= 5) & (np.array([text < "1980" for text in born]))
    table = pd.DataFrame({"event_timestamp": at, "sent": at.strftime("%Y-%m-%dT%H:%M").to_numpy(object), "born": born})
    proposal = proposed(table.assign(target=late.astype(int)), tmp_path, CLASSES, Split(by="time", holdout="10d"))
    parts = {
        tuple(e["columns"]): e["parameters"]["parts"] for e in proposal.train["encoders"] if "driftline" in e["family"]
    }
    assert parts["sent",] == ["month", "weekday", "hour"]
    assert "days" in parts["born",]


def test_a_forest_of_rare_categories_takes_gaps() -> None:
    """One-hot columns are dense for trees, which take no gaps in sparse ones."""
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"size": random.normal(size=600), "kind": random.choice([f"k{i}" for i in range(30)], 600)})
    rows["y"] = (rows["size"] > 0).astype(int)
    rows.loc[::4, "size"] = np.nan
    shape = Shape(600, "classification", [ColumnRole("size", "number"), ColumnRole("kind", "category")])
    section = {"family": "sklearn.ensemble.RandomForestClassifier", "encoders": tree_encoders(shape, "one-hot")}
    config = Train(**section, split=Split(by="hash", share=0.2))
    columns = [Column(name="size", kind="number", origin="request"), Column(name="kind", kind="text", origin="request")]
    target = Target(column="y", task="classification")
    model = fit(build_pipeline(config, target.task, columns), rows, target, config, columns)
    assert np.isfinite(predict(model, rows)).all()
