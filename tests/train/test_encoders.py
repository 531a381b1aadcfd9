from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.core.errors import CaseError
from tasks.features.results import Column
from tasks.train.config import Encoder, Target, Train
from tasks.train.tabular.categories import known_categories, unseen_categories
from tasks.train.tabular.encoders import DateParts
from tasks.train.tabular.fit import fit
from tasks.train.tabular.model_file import Model, load, predict, save
from tasks.train.tabular.pipeline import build_pipeline, check_training
from tests.train.frames import BY_HASH, CLASSES, VALUES, frame_of, orders

TREES = (
    Encoder(
        columns=("colour",), family="sklearn.preprocessing.OrdinalEncoder", parameters={"max_categories": 3}
    ),  # fewer than there are with the missing one
    Encoder(columns=("town",), family="sklearn.preprocessing.TargetEncoder"),
    Encoder(columns=("bought",), family="driftline.DateParts"),
    Encoder(
        columns=("message",),
        family="sklearn.feature_extraction.text.TfidfVectorizer",
        parameters={"ngram_range": [1, 2], "max_features": 60},
    ),
    Encoder(columns=("message",), family="sklearn.decomposition.TruncatedSVD", parameters={"n_components": 5}),
)
LINEAR = (
    Encoder(columns=("amount",), family="sklearn.preprocessing.StandardScaler"),
    Encoder(columns=("colour", "town"), family="sklearn.preprocessing.OneHotEncoder"),
    Encoder(columns=("bought",), family="driftline.DateParts", parameters={"parts": ["month", "days"]}),
    Encoder(columns=("bought",), family="sklearn.impute.SimpleImputer"),
    Encoder(columns=("bought",), family="sklearn.preprocessing.StandardScaler"),
    Encoder(columns=("message",), family="sklearn.feature_extraction.text.TfidfVectorizer"),
)


def table_of(classes: int) -> pd.DataFrame:
    """Orders with gaps, and with a target of so many classes; of none it is a skewed number."""
    table = orders().drop(columns="ticket")
    score = table["amount"] + 9 * table.pop("target")
    table["target"] = np.char.add("c", pd.qcut(score, classes, labels=False).astype(str)) if classes else score**2
    for gap, name in ((7, "message"), (9, "bought"), (5, "colour")):
        table.loc[::gap, name] = None
    return table


def fitted(classes: int, encoders: tuple[Encoder, ...], folder: Path) -> tuple[Model, pd.DataFrame]:
    frame = frame_of(table_of(classes), folder)
    kind = "Classifier" if classes else "Regressor"
    if encoders is TREES:
        parameters: dict[str, object] = {"max_iter": 20, "categorical_features": ["colour"], "early_stopping": True}
        family = f"sklearn.ensemble.HistGradientBoosting{kind}"
    else:
        parameters, family = {}, f"sklearn.linear_model.{'LogisticRegression' if classes else 'Ridge'}"
    config = Train(
        family=family,
        parameters=parameters,
        encoders=encoders,
        target_transform=None if classes else "log1p",
        split=BY_HASH,
        threads=1,
    )
    target = CLASSES if classes else VALUES
    examples = pd.read_parquet(frame.path)
    pipeline = build_pipeline(config, target.task, frame.columns)
    return fit(pipeline, examples, target, config, frame.columns), examples


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("encoders", [TREES, LINEAR], ids=["trees", "linear"])
@pytest.mark.parametrize("classes", [0, 2, 12])
def test_every_encoder_answers_alike_everywhere(classes: int, encoders: tuple[Encoder, ...], tmp_path: Path) -> None:
    """FAULTS 23, 28, 36, 38: alone, in company, from the file and by the pipeline; of twelve classes too."""
    model, examples = fitted(classes, encoders, tmp_path)
    digest = save(model, tmp_path / "model.skops")
    read = load(tmp_path / "model.skops")
    assert save(read, tmp_path / "again.skops") == digest
    some = examples.head(100)
    batch = predict(read, some)
    for i in range(0, 100, 7):
        row = {column.name: [some[column.name].iloc[i]] for column in read.columns}
        assert np.array_equal(predict(read, row)[0], batch[i])
        assert np.array_equal(predict(read, some[i : i + 2]), batch[i : i + 2])
    expected = (model.pipeline.predict_proba if classes else model.pipeline.predict)(some.where(some.notna(), np.nan))
    assert np.allclose(batch, expected[:, 1] if classes == 2 else expected, rtol=1e-9)
    assert np.array_equal(predict(read, pd.concat([examples] * 4))[:100], batch)  # whole columns at once


def test_digits_have_ten_classes_with_equal_answers(tmp_path: Path) -> None:
    """FAULTS 23: eight classes and more have the same answer alone and in company, to the last digit."""
    from sklearn.datasets import load_digits

    frame = frame_of(load_digits(as_frame=True).frame.head(600), tmp_path)
    examples = pd.read_parquet(frame.path)
    for family in ("ensemble.HistGradientBoostingClassifier", "ensemble.RandomForestClassifier"):
        config = Train(family=f"sklearn.{family}", parameters={}, split=BY_HASH, threads=1)
        config = config.model_copy(update={"parameters": {"max_iter" if "Hist" in family else "n_estimators": 8}})
        pipeline = build_pipeline(config, "classification", frame.columns)
        model = fit(pipeline, examples, Target(column="target", task="classification"), config, frame.columns)
        batch = predict(model, examples)
        alone = np.concatenate([predict(model, examples[i : i + 1]) for i in range(0, 600, 5)])
        assert np.array_equal(alone, batch[::5])


def test_blanks_around_words_change_nothing(tmp_path: Path) -> None:
    """FAULTS 39: words are trimmed in training and in scoring alike; an empty one is missing."""
    model, examples = fitted(2, TREES, tmp_path)
    row = {column.name: [examples[column.name].iloc[1]] for column in model.columns}
    padded = {name: [f" {value[0]}\t" if isinstance(value[0], str) else value[0]] for name, value in row.items()}
    assert predict(model, padded)[0] == predict(model, row)[0]
    assert predict(model, {**row, "colour": ["  "]})[0] == predict(model, {**row, "colour": [None]})[0]


def test_unseen_categories_are_named(tmp_path: Path) -> None:
    """FAULTS 39: which columns hold words that no training row had; gaps, dates and free text are none."""
    model, examples = fitted(2, TREES, tmp_path)
    assert unseen_categories(known_categories(model), examples) == {}
    rows = {column.name: examples[column.name].head(3).tolist() for column in model.columns}
    rows |= {
        "colour": ["red ", "pink", None],
        "town": ["Ely", "Bath", examples["town"].iloc[0]],
        "message": ["x", "y", "z"],
    }
    save(model, tmp_path / "model.skops")
    known = known_categories(load(tmp_path / "model.skops"))
    assert unseen_categories(known, rows) == {"colour": ["pink"], "town": ["Bath", "Ely"]}


def test_dates_become_numbers() -> None:
    """FAULTS 36: a zone is turned into UTC, a date alone is its midnight, what is no date is missing."""
    texts = ["2026-03-01T01:30:00+02:00", "2026-03-01", "soon", "9999-12-31T23:00-12:00", None, float("nan")]
    parts = DateParts().fit([[text] for text in texts]).transform([[text] for text in texts])
    assert parts[0].tolist() == [2026, 2, 5, 23.5, 59, parts[0, 5]]
    assert parts[1].tolist() == [2026, 3, 6, 0, 60, 20513]
    assert np.isnan(parts[2:]).all()


def test_unknown_parts_and_transforms_are_refused() -> None:
    """By validate, before data is read."""
    columns = [Column(name="day", kind="text", origin="request")]
    days = Encoder(columns=("day",), family="driftline.DateParts", parameters={"parts": ["moon"]})
    boosting = "sklearn.ensemble.HistGradientBoosting"
    with pytest.raises(CaseError, match="moon"):
        check_training(Train(family=f"{boosting}Regressor", encoders=(days,), split=BY_HASH), "regression", columns)
    config = Train(family=f"{boosting}Classifier", target_transform="log1p", split=BY_HASH)
    with pytest.raises(CaseError, match="Only a regression"):
        check_training(config, "classification")
