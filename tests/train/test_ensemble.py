"""An ensemble is one model: in its file, alone and in many rows, and when its scores are recalibrated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.features.results import Column
from tasks.train.config import Split, Target, Train
from tasks.train.tabular.fit import fit
from tasks.train.tabular.model_file import load, save
from tasks.train.tabular.pipeline import build_pipeline
from tasks.train.tabular.scoring import predict

COLUMNS = (Column(name="size", kind="number", origin="request"), Column(name="kind", kind="text", origin="request"))
BOOSTING = {
    "family": "sklearn.ensemble.HistGradientBoosting",
    "parameters": {"max_iter": 10},
    "encoders": [{"columns": ["kind"], "family": "sklearn.preprocessing.OrdinalEncoder"}],
}
LINEAR = {
    "parameters": {},
    "encoders": [
        {"columns": ["kind"], "family": "sklearn.preprocessing.OneHotEncoder"},
        {"columns": ["size"], "family": "sklearn.preprocessing.StandardScaler"},
    ],
    "weight": 3.0,
}


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_prediction_is_the_weighted_mean(task, tmp_path):
    """Of models with their own encoders; equal after the file was read, for one row and for many."""
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"size": random.normal(size=300), "kind": random.choice(["a", "b"], 300)})
    value = rows["size"] + (rows["kind"] == "a")
    rows["y"] = (value > 0.5).astype(int) if task == "classification" else value
    kind, linear = ("Classifier", "LogisticRegression") if task == "classification" else ("Regressor", "Ridge")
    member = {**LINEAR, "family": f"sklearn.linear_model.{linear}"}
    section = {**BOOSTING, "family": f"{BOOSTING['family']}{kind}", "ensemble": [member]}
    config = Train(**section, split=Split(by="hash", share=0.2))
    target = Target(column="y", task=task)
    fitted = fit(build_pipeline(config, task, COLUMNS), rows, target, config, COLUMNS)
    save(fitted, tmp_path / "model.skops")
    model = load(tmp_path / "model.skops")
    alone = [fit(build_pipeline(each, task, COLUMNS), rows, target, each, COLUMNS) for each in config.members]
    expected = 0.25 * predict(alone[0], rows) + 0.75 * predict(alone[1], rows)
    assert predict(model, rows) == pytest.approx(expected)
    one = {"size": [rows["size"][7]], "kind": [rows["kind"][7]]}
    assert predict(model, one)[0] == predict(model, rows)[7]
