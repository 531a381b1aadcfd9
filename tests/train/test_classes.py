"""Classes of any name, from a column of a table to the answers of a model file, and what is no class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from tasks.core.errors import CaseError, DataError
from tasks.features.results import Column
from tasks.train.classes import (
    UNKNOWN_CLASS,
    align_classes,
    encode_target,
    infer_classes,
    prediction_columns,
    predictions_in,
)
from tasks.train.config import Target, Train
from tasks.train.tabular.fit import fit, train
from tasks.train.tabular.imported import import_model
from tasks.train.tabular.model_file import Model, load, predict, save
from tasks.train.tabular.pipeline import build_pipeline
from tests.train.frames import BY_HASH, CLASSES, VALUES, boosting, frame_of, origin_of, wines

FOREST, BOOSTING = "sklearn.ensemble.RandomForestClassifier", "sklearn.ensemble.HistGradientBoostingClassifier"
COLUMNS = tuple(Column(name=name, kind="number", origin="request") for name in ("alcohol", "hue", "proline"))
NO_FIRST = Target(column="target", task="classification", positive="No")


def fitted(table: pd.DataFrame, path: Path, target: Target, family: str) -> Model:
    """A model as its file gives it back."""
    parameters = {"n_estimators": 10} if family == FOREST else {"max_iter": 5}
    config = Train(family=family, parameters=parameters, split=BY_HASH, threads=1)
    save(fit(build_pipeline(config, "classification", COLUMNS), table, target, config, COLUMNS), path)
    return load(path)


@pytest.mark.parametrize(
    ("names", "target", "classes"),
    [
        (("b", "a", "c"), CLASSES, ("a", "b", "c")),
        ((3, 1, 2), CLASSES, (1, 2, 3)),
        (("Yes", "No", "No"), CLASSES, ("No", "Yes")),
        (("Yes", "No", "No"), NO_FIRST, ("Yes", "No")),
        ((2.0, 1.0, 1.0), CLASSES, (1, 2)),
        ((True, False, False), CLASSES, (0, 1)),
        ((1.0, 0.0, 0.0), Target(column="target", task="classification", positive=False), (1, 0)),
    ],
)
def test_answers_are_the_estimators_own(names: Any, target: Target, classes: Any, tmp_path: Path) -> None:
    """Text, whole numbers, truths; of two the positive one's probability, of three each one's; alone as together."""
    table = wines(names)
    for family in (FOREST, BOOSTING):
        model = fitted(table, tmp_path / "model.skops", target, family)
        assert model.classes == classes
        order = [[*model.estimator.classes_].index(name) for name in classes]
        own = model.estimator.predict_proba(table[[column.name for column in COLUMNS]].to_numpy())[:, order]
        answers = predict(model, table)
        assert np.array_equal(answers, own if len(classes) > 2 else own[:, 1])
        assert np.array_equal(
            np.concatenate([predict(model, table.iloc[[i]]) for i in (0, 70, 170)]), answers[[0, 70, 170]]
        )
        assert np.array_equal(predictions_in(table.assign(**prediction_columns(answers, classes)), classes), answers)
        assert predict(model, table.head(0)).shape == answers[:0].shape


@pytest.mark.parametrize(
    ("values", "target", "message", "found"),
    [
        ([0.5, 1.0, 2.0], CLASSES, "must hold classes", "such as 0.5"),
        (range(150), CLASSES, "must hold classes", "150 different values"),
        (["a"] * 9 + ["b"] * 9 + ["c"], CLASSES, "too few training examples", "c (1)"),
        (["Yes", "No"] * 9, NO_FIRST.model_copy(update={"positive": "no"}), "not one of two", "'no', classes 'No'"),
        (["Yes", "No"] * 9, NO_FIRST.model_copy(update={"positive": False}), "not one of two", "in quotes"),
        ([1.0, 0.0] * 9, NO_FIRST, "not one of two", "if(target, 'Yes', 'No')"),
        (["Yes", "No", "?"] * 9, NO_FIRST, "not one of two", "'?'"),
    ],
)
def test_values_that_are_not_classes_are_refused(values: Any, target: Target, message: str, found: str) -> None:
    """Measurements, a rare class, a positive that there is not, or that YAML reads otherwise, or of three classes."""
    with pytest.raises((CaseError, DataError), match=message) as caught:
        infer_classes(pd.Series([*values]), target, 5)
    assert found in str(caught.value)


def test_a_regression_has_no_classes(state: Path, tmp_path: Path) -> None:
    """Text is no number, and a positive class of none is refused before anything is read."""
    with pytest.raises(DataError, match="must be numeric"):
        train(origin_of("text", state), frame_of(wines(), tmp_path), VALUES, boosting())
    with pytest.raises(ValidationError, match="positive names a class"):
        Target(column="target", task="regression", positive="Yes")


def test_a_feature_is_not_called_as_a_score(state: Path, tmp_path: Path) -> None:
    """It would stand in one table with the scores."""
    table = wines().rename(columns={"hue": "score_barbera"})
    with pytest.raises(CaseError, match="name of a class's score: score_barbera"):
        train(origin_of("taken", state), frame_of(table, tmp_path), CLASSES, boosting((), BY_HASH))


def test_what_a_model_does_not_know_has_no_probability() -> None:
    """A class of the data that it never saw is UNKNOWN_CLASS; beside a model that knows it, it gets 0."""
    values = pd.Series(["a", "c", None, "b"])
    assert encode_target(values, ("a", "b")).tolist()[:2] == [0, UNKNOWN_CLASS]
    assert np.isnan(encode_target(values, ("a", "b"))[2])
    assert encode_target(pd.Series([0.0, 2.0, 1.0]), (0, 1)).tolist() == [0, UNKNOWN_CLASS, 1]
    two, three = np.array([0.75]), np.array([[0.5, 0.25, 0.25]])
    y, first, second = align_classes(values[:1], three, ("a", "b", "c"), two, ("c", "a"))
    assert (y.tolist(), first.tolist(), second.tolist()) == ([0], [[0.5, 0.25, 0.25]], [[0.75, 0, 0.25]])
    y, first, second = align_classes(values[:1], two, ("a", "b"), two, ("a", "b"))
    assert (first.tolist(), second.tolist()) == ([0.75], [0.75])


def test_an_imported_model_has_the_cases_classes(state: Path, tmp_path: Path) -> None:
    """Of three names, or of two with the other one positive; one of other classes is refused with both named."""
    import skops.io
    from sklearn.linear_model import LogisticRegression

    def imported(names: Any, target: Target = CLASSES, fitted_on: Any = None) -> Model:
        table = wines(names)[["alcohol", "hue", "target"]]
        model = LogisticRegression().fit(table[["alcohol", "hue"]], table["target"] if fitted_on is None else fitted_on)
        skops.io.dump(model, tmp_path / "model.skops")
        config = boosting((), BY_HASH)
        origin = origin_of("elsewhere", state)
        candidate = import_model(origin, tmp_path / "model.skops", frame_of(table, tmp_path), target, config, ())
        return load(candidate.folder / "model.skops")

    assert imported(("b", "a", "c")).classes == ("a", "b", "c")
    assert imported(("Yes", "No", "No"), NO_FIRST).classes == ("Yes", "No")
    with pytest.raises(DataError, match="does not fit the task classification") as caught:
        imported(("b", "a", "c"), fitted_on=wines((0, 1, 2))["target"])
    assert "0" in caught.value.found
    assert "a, b, c" in caught.value.allowed
