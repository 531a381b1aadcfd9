from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.core.errors import DataError
from tasks.features.results import Column
from tasks.train.config import Encoder, Train
from tasks.train.tabular.fit import fit
from tasks.train.tabular.model_file import Model, load, predict, save
from tasks.train.tabular.pipeline import build_pipeline
from tests.train.frames import BY_TIME, CLASSES, TEXTS, VALUES, boosting, clients, frame_of, logistic

ORDINAL = "sklearn.preprocessing.OrdinalEncoder"
TABLE = clients(400)
NUMBERS = tuple(name for name in TABLE if name not in (*TEXTS, "example_id", "target"))


def other(family: str, **parameters: Any) -> Train:
    """A family that takes no missing values, behind imputed and encoded columns."""
    base = logistic(NUMBERS, TEXTS)
    return Train(family=family, parameters=parameters, encoders=base.encoders, split=BY_TIME, threads=1)


DECLARED = {
    "boosting": boosting(TEXTS, categorical_features=[0, 1, 2]),
    "logistic": logistic(NUMBERS, TEXTS),
    "forest": Train(
        family="sklearn.ensemble.RandomForestClassifier",
        parameters={"n_estimators": 20},
        encoders=(Encoder(columns=TEXTS, family=ORDINAL, parameters={"encoded_missing_value": -1}),),
        split=BY_TIME,
        threads=2,
    ),
    "extra": other("sklearn.ensemble.ExtraTreesRegressor", n_estimators=10),
    "network": other("sklearn.neural_network.MLPClassifier", hidden_layer_sizes=[8], max_iter=20),
    "ridge": other("sklearn.linear_model.Ridge"),
    "trees": other("sklearn.ensemble.GradientBoostingRegressor", n_estimators=10),
}


def fitted(name: str, folder: Path) -> tuple[Model, pd.DataFrame, tuple[Column, ...]]:
    frame = frame_of(TABLE, folder)
    target = VALUES if name in ("ridge", "trees", "extra") else CLASSES
    config = DECLARED[name]
    examples = pd.read_parquet(frame.path)
    pipeline = build_pipeline(config, target.task, frame.columns)
    return fit(pipeline, examples, target, config, frame.columns), examples, frame.columns


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", DECLARED)
def test_a_row_has_the_same_answer_alone_in_a_batch_and_from_the_file(name: str, tmp_path: Path) -> None:
    """To the last digit: alone, in any company, from a mapping or a frame; the file brings the model back whole."""
    model, examples, columns = fitted(name, tmp_path)
    digest = save(model, tmp_path / "model.skops")
    read = load(tmp_path / "model.skops")
    examples = examples.head(120)
    batch = predict(model, examples, columns)
    assert batch.dtype == np.float64
    assert np.array_equal(predict(read, examples, columns), batch)
    assert np.array_equal(predict(read, examples[50:90]), batch[50:90])
    for i in range(0, 120, 11):
        row = {column.name: [examples[column.name].iloc[i]] for column in columns}
        assert predict(read, row)[0] == predict(read, examples[i : i + 1])[0] == batch[i]
    assert save(read, tmp_path / "again.skops") == digest
    expected = model.pipeline.predict_proba if model.classifies else model.pipeline.predict
    with np.errstate(all="ignore"):
        plain = expected(examples.fillna({"marriage": np.nan}))
    assert np.allclose(batch, plain[:, 1] if model.classifies else plain, rtol=1e-9)


def test_what_a_service_meets_is_answered(tmp_path: Path) -> None:
    """Gaps of every kind mean the same, unseen words are no error, no rows give no answers."""
    model, examples, columns = fitted("boosting", tmp_path)
    row = {column.name: [examples[column.name].iloc[1]] for column in columns}
    gaps = [predict(model, {**row, "marriage": [gap], "age": [None]})[0] for gap in (None, float("nan"), pd.NA)]
    assert gaps[0] == gaps[1] == gaps[2]
    assert 0 < predict(model, {**row, "education": ["never seen before"]})[0] < 1
    assert len(predict(model, examples.head(0))) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"age": ["old"]}, "could not convert string to float"),
        ({"education": [3]}, "column education takes text, got 3"),
    ],
)
def test_values_that_a_model_cannot_take_are_refused(
    tmp_path: Path, change: dict[str, list[Any]], message: str
) -> None:
    """A value of the wrong kind, a missing column and foreign columns are told, without a traceback's jargon."""
    model, examples, columns = fitted("boosting", tmp_path)
    row = {column.name: [examples[column.name].iloc[1]] for column in columns}
    with pytest.raises(DataError, match=message):
        predict(model, {**row, **change})
    with pytest.raises(DataError, match="without age"):
        predict(model, {name: value for name, value in row.items() if name != "age"})
    with pytest.raises(DataError, match="not those that the model was trained on"):
        predict(model, row, columns[:-1])


def test_a_linear_model_says_that_it_needs_values(tmp_path: Path) -> None:
    """Without its imputer the gap would have to be guessed: it is refused."""
    config = Train(family="sklearn.linear_model.LogisticRegression", split=BY_TIME, threads=1)
    frame = frame_of(TABLE[["example_id", "age", "pay_0", "target"]], tmp_path)
    examples = pd.read_parquet(frame.path)
    model = fit(build_pipeline(config, "classification", frame.columns), examples, CLASSES, config, frame.columns)
    with pytest.raises(DataError, match="NaN"):
        predict(model, {"age": [None], "pay_0": [1]})


def test_a_pickle_and_foreign_types_are_refused(tmp_path: Path) -> None:
    """Reading a model file runs nothing: neither a pickle's code nor a function named in a skops file."""
    import skops.io
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    model, _, _ = fitted("boosting", tmp_path)
    path = tmp_path / "model.skops"
    path.write_bytes(pickle.dumps(model.pipeline))
    with pytest.raises(DataError, match="not a skops archive"):
        load(path)
    skops.io.dump(make_pipeline(FunctionTransformer(json.loads)), path)
    with pytest.raises(DataError, match=r"json\.loads"):
        load(path)
    skops.io.dump({"no": "model"}, path)
    with pytest.raises(DataError, match="the train package did not write"):
        load(path)
    with pytest.raises(DataError, match="no such file"):
        load(tmp_path / "nowhere.skops")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """Cut short, or with a schema that makes no sense."""
    model, _, _ = fitted("boosting", tmp_path)
    path = tmp_path / "model.skops"
    save(model, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="can't be read"):
        load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("schema.json", "{}")
    with pytest.raises(DataError, match="can't be read"):
        load(path)


@pytest.mark.parametrize("name", ["boosting", "forest"])
def test_trees_that_point_outside_of_themselves_are_refused(name: str, tmp_path: Path) -> None:
    """scikit-learn would follow them into other memory."""
    model, _, _ = fitted(name, tmp_path)
    path = tmp_path / "model.skops"
    save(model, path)
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    for member, content in members.items():
        if member.endswith(".npy"):
            array = np.load(__import__("io").BytesIO(content))
            field = next((f for f in ("left", "left_child") if f in (array.dtype.names or ())), None)
            if field and len(array) > 1:
                array[field][0] = 10_000_000
                with (tmp_path / "changed.npy").open("wb") as stream:
                    np.save(stream, array)
                members[member] = (tmp_path / "changed.npy").read_bytes()
                break
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    with pytest.raises(DataError, match="child out of range"):
        load(path)
