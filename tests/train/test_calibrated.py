"""A calibrated classifier is stored, answers row by row as in one go, and is closer to what happens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.core.errors import CaseError
from tasks.features.results import Column
from tasks.train.config import Split, Target, Train
from tasks.train.metrics import compute_metrics
from tasks.train.tabular.fit import fit
from tasks.train.tabular.model_file import load, predict, save
from tasks.train.tabular.pipeline import build_pipeline
from tasks.train.tabular.scoring import Model

COLUMNS = [Column(name=name, kind="number", origin="request") for name in ("a", "b")]
TARGET = Target(column="target", task="classification")
BOOSTING = "sklearn.ensemble.HistGradientBoostingClassifier"
FAMILIES = {
    BOOSTING: {"max_iter": 60},
    "sklearn.ensemble.RandomForestClassifier": {"n_estimators": 10},
    "sklearn.linear_model.LogisticRegression": {},
}


def rows(count: int, classes: int = 2) -> pd.DataFrame:
    random = np.random.default_rng(count)
    table = pd.DataFrame({"a": random.normal(size=count), "b": random.normal(size=count)})
    noisy = table["a"] + random.normal(scale=1.5, size=count)
    return table.assign(target=pd.qcut(noisy, classes, labels=False))


def fitted(family: str = BOOSTING, calibration: str | None = "sigmoid", classes: int = 2) -> Model:
    split = Split(by="hash", share=0.2)
    config = Train(family=family, parameters=FAMILIES[family], calibration=calibration, split=split, threads=1)
    return fit(build_pipeline(config, "classification", COLUMNS), rows(600, classes), TARGET, config, COLUMNS)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("calibration", ["sigmoid", "isotonic"])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.rpartition(".")[2])
def test_a_stored_model_answers_each_row_alone(family, calibration, classes, tmp_path: Path):
    """To the last digit as all together; so does what is read back."""
    model = fitted(family, calibration, classes)
    save(model, tmp_path / "model.skops")
    stored, test = load(tmp_path / "model.skops"), rows(40)
    together = predict(model, test)
    alone = [
        predict(stored, {name: [value] for name, value in row.items()})[0]
        for row in test[["a", "b"]].to_dict("records")
    ]
    np.testing.assert_array_equal(np.array(alone), together)
    assert (model.compiled is not None) == (family == BOOSTING)


def test_calibration_lowers_the_brier_score():
    """A boosting that learned 600 noisy rows by heart is too sure of itself."""
    test = rows(3000)
    y = test["target"].to_numpy()
    plain, calibrated = (
        compute_metrics(y, predict(fitted(calibration=each), test), "classification") for each in (None, "sigmoid")
    )
    assert calibrated["brier"] < plain["brier"] - 0.01
    assert calibrated["calibration_error"] < plain["calibration_error"]


def test_a_regression_has_nothing_to_calibrate():
    """It is refused before anything is fitted."""
    config = Train(family="sklearn.linear_model.Ridge", calibration="sigmoid", split=Split(by="hash", share=0.2))
    with pytest.raises(CaseError, match="probabilities to calibrate"):
        build_pipeline(config, "regression", COLUMNS)
