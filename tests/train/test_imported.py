"""Scikit-learn models model elsewhere: what is taken, kept as skops and answers as it did; what is refused, unread."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from tasks.core.errors import DataError
from tasks.core.mlflow import Tracking, mlflow_client
from tasks.train.results import Candidate
from tasks.train.tabular.imported import import_model
from tasks.train.tabular.model_file import load, predict
from tasks.train.tabular.split import split_frame
from tests.train.frames import BY_HASH, CLASSES, TEXTS, VALUES, boosting, clients, diabetes, frame_of, origin_of

TABLE = clients(600)
NUMBERS = [name for name in TABLE if name not in (*TEXTS, "example_id", "target")]
SUGAR = diabetes()
FEATURES = [name for name in SUGAR if name != "target"]


def imported(state: Path, path: Path, table: pd.DataFrame = TABLE, trusted: tuple[str, ...] = ()) -> Candidate:
    target = CLASSES if table is TABLE else VALUES
    frame = frame_of(table, state / "frames")
    config = boosting(TEXTS if table is TABLE else (), BY_HASH)
    return import_model(origin_of("brought", state), path, frame, target, config, trusted)


def written(model: Any, path: Path) -> Path:
    import skops.io  # with torch and dask it takes seconds, of every process that collects tests

    skops.io.dump(model, path)
    return path


def encoded(estimator: Any, *more: Any) -> Any:
    """A pipeline as people write it, on columns of both kinds."""
    encoding = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
        (OneHotEncoder(handle_unknown="ignore"), ["sex", "education"]),  # marriage is dropped
    )
    model = make_pipeline(encoding, *more, estimator)
    return model.fit(TABLE[[*NUMBERS, *TEXTS]], TABLE["target"])


def test_an_imported_pipeline_predicts_as_before(state: Path, tmp_path: Path) -> None:
    """The candidate has its run, importance and lineage; the same file gives the same one, even after a kill."""
    model = encoded(LogisticRegression(max_iter=500))
    path = written(model, tmp_path / "model.skops")
    candidate = imported(state, path)
    assert candidate.imported == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (candidate.train_rows, candidate.folder.name) == (0, imported(state, path).folder.name)
    held = split_frame(pd.read_parquet(candidate.frame), BY_HASH)[1]
    values = held[[*NUMBERS, *TEXTS]].fillna({"marriage": np.nan})
    loaded = load(candidate.folder / "model.skops")
    assert np.allclose(predict(loaded, held, candidate.columns), model.predict_proba(values)[:, 1], rtol=1e-9)
    assert json.loads((candidate.folder / "importance.json").read_text())
    client = mlflow_client(Tracking.in_folder(state))
    run = client.get_run(candidate.run_id)
    assert run.data.tags["driftline.imported"] == run.data.params["imported"] == candidate.imported
    assert run.data.metrics["holdout_auc"] > 0.6
    client.update_run(candidate.run_id, status="RUNNING")  # as a process killed at the very end leaves it
    assert imported(state, path) == candidate


@pytest.mark.parametrize("kind", ["bare", "scaled", "forest", "steps", "words"])
def test_models_of_every_shape_are_taken(kind: str, state: Path, tmp_path: Path) -> None:
    """An estimator alone, on some columns in an order of its own; with steps before or after encoding; on words."""
    if kind == "words":
        encoding = make_column_transformer((TfidfVectorizer(), "education"), ("passthrough", ["age"]))
        model = make_pipeline(encoding, LogisticRegression()).fit(TABLE[["education", "age"]], TABLE["target"])
        imported(state, written(model, tmp_path / "model.skops"))
    elif kind in ("bare", "scaled"):
        model = Ridge() if kind == "bare" else make_pipeline(StandardScaler(), Ridge())
        model.fit(SUGAR[FEATURES[::-1][:6]], SUGAR["target"])
        imported(state, written(model, tmp_path / "model.skops"), SUGAR)
    else:
        steps = [StandardScaler(with_mean=False)] if kind == "steps" else []
        model = encoded(RandomForestClassifier(10, n_jobs=2, random_state=0), *steps)
        imported(state, written(model, tmp_path / "model.skops"))


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def test_a_pickle_is_refused_without_being_read(state: Path, tmp_path: Path) -> None:
    """Whatever it is called, its code does not run; the message has the digest that a case may trust."""
    planted = tmp_path / "planted"
    content = pickle.dumps(Payload(planted))
    for name in ("model.pkl", "model.joblib", "model.pickle", "model.bin", "model", "model.skops"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            imported(state, path)
        if name != "model.skops":
            assert hashlib.sha256(content).hexdigest() in caught.value.found
            assert "trusted" in caught.value.todo
    assert not planted.exists()
    os.system(f"touch {planted}")  # as it would have done
    assert planted.exists()


@pytest.mark.parametrize("how", [joblib.dump, lambda model, path: path.write_bytes(pickle.dumps(model))])
def test_a_trusted_pickle_becomes_skops(how: Any, state: Path, tmp_path: Path) -> None:
    """Named by its digest it is opened, once; the candidate is a file that runs nothing, as from skops."""
    model = Ridge().fit(SUGAR[FEATURES], SUGAR["target"])
    path = tmp_path / "model.pkl"
    how(model, path)
    candidate = imported(state, path, SUGAR, trusted=(hashlib.sha256(path.read_bytes()).hexdigest(),))
    same = imported(state, written(model, tmp_path / "model.skops"), SUGAR)
    assert candidate.weights_digest == same.weights_digest
    assert candidate.imported != same.imported


def test_a_trusted_pickle_of_foreign_types_is_refused(state: Path, tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(partial(np.multiply, 2.0)), Ridge())
    model.steps[0][1].kw_args = {}
    model.fit(SUGAR[FEATURES], SUGAR["target"])
    model.steps[0][1].note = Path("somewhere")
    path = tmp_path / "model.pkl"
    joblib.dump(model, path)
    with pytest.raises(DataError, match="can't be stored as skops") as caught:
        imported(state, path, SUGAR, trusted=(hashlib.sha256(path.read_bytes()).hexdigest(),))
    assert "PosixPath" in caught.value.found


@pytest.mark.parametrize(
    ("change", "message", "found"),
    [
        (lambda: make_pipeline(FunctionTransformer(json.loads), Ridge()), "can't be read", "json.loads"),
        (
            lambda: Ridge().fit(SUGAR.rename(columns={"bmi": "weight"})[["weight"]], SUGAR["target"]),
            "columns",
            "weight",
        ),
        (lambda: Ridge().fit(SUGAR[FEATURES].to_numpy(), SUGAR["target"]), "which columns", "feature_names_in_"),
        (lambda: Ridge(), "which columns", "feature_names_in_"),
        (lambda: LogisticRegression().fit(SUGAR[["bmi"]], SUGAR["target"] > 150), "regression", "classes"),
        (lambda: {"no": "model"}, "regression", "dict"),
        (lambda: StandardScaler().fit(SUGAR[FEATURES]), "regression", "StandardScaler"),
    ],
)
def test_what_does_not_fit_is_refused(change: Any, message: str, found: str, state: Path, tmp_path: Path) -> None:
    """Foreign types by name, foreign columns, none, the wrong task, no model at all; and nothing is left of it."""
    folder = state / "candidates" / "brought"
    before = sorted(folder.glob("*"))
    with pytest.raises(DataError, match=message) as caught:
        imported(state, written(change(), tmp_path / "model.skops"), SUGAR)
    assert found in str(caught.value)
    assert sorted(folder.glob("*")) == before


def test_columns_of_another_kind_are_refused(state: Path, tmp_path: Path) -> None:
    """A model that was fitted on numbers where the case has text."""
    numeric = TABLE[["age", "sex"]].assign(sex=range(len(TABLE)))
    model = DecisionTreeClassifier(max_depth=2).fit(numeric, TABLE["target"])
    with pytest.raises(DataError, match="does not take the case's columns") as caught:
        imported(state, written(model, tmp_path / "model.skops"))
    assert "sex (text)" in caught.value.allowed


def test_crafted_trees_deep_inside_are_refused(state: Path, tmp_path: Path) -> None:
    """A tree of an estimator within another, model for more columns than it is given, would read other memory."""
    wide = DecisionTreeClassifier(max_depth=2).fit(TABLE[NUMBERS].fillna(0), TABLE["target"])
    model = BaggingClassifier(RandomForestClassifier(2), 1).fit(TABLE[["age", "pay_0"]], TABLE["target"])
    model.estimators_[0].estimators_[0].tree_ = wide.tree_
    with pytest.raises(DataError, match="can't be read") as caught:
        imported(state, written(model, tmp_path / "model.skops"))
    assert "a column out of range" in caught.value.found
