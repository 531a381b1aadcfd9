from __future__ import annotations

from typing import Any

import pytest

from tasks.core.config import digest_of
from tasks.core.errors import CaseError
from tasks.features.results import Column
from tasks.train.config import Encoder, Train
from tasks.train.tabular.pipeline import build_pipeline, check_training
from tests.train.frames import BY_TIME

COLUMNS = [
    Column(name="age", kind="number", origin="request"),
    Column(name="sex", kind="text", origin="request"),
    Column(name="income", kind="number", origin="request"),
    Column(name="town", kind="text", origin="request"),
]
ORDINAL = Encoder(columns=("town", "sex"), family="sklearn.preprocessing.OrdinalEncoder")


def declared(family: str = "sklearn.ensemble.HistGradientBoostingClassifier", **more: Any) -> Train:
    return Train(**{"family": family, "split": BY_TIME, "encoders": (ORDINAL,), **more})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (declared("sklearn.ensemble.HistGradientBoostingClassifer"), "Did you mean HistGradientBoostingClassifier"),
        (declared("sklearn.ensembles.Forest"), "no module sklearn.ensembles"),
        (declared("sklearn.utils.shuffle"), "has no estimator shuffle"),
        (declared("sklearn.linear_model.Ridge"), "Ridge is not a classifier"),
        (declared("sklearn.svm.LinearSVC"), "gives no probabilities"),
        (declared("sklearn.ensemble.StackingClassifier"), "can't be built with these parameters"),
        (declared(parameters={"max_itr": 5}), "Did you mean max_iter"),
        (declared(parameters={"max_iter": "many"}), "The 'max_iter' parameter"),
        (declared(parameters={"random_state": 5}), "Set train.seed instead"),
        (declared(encoders=(Encoder(columns=("sex",), family="sklearn.linear_model.Ridge"),)), "is not a transformer"),
        (declared(encoders=(Encoder(columns=("sex",), family=ORDINAL.family),)), "without an encoder: town"),
        (declared(encoders=(Encoder(columns=("towns",), family=ORDINAL.family),)), "Did you mean town"),
        (declared(parameters={"categorical_features": ["towm"]}), "columns without a fixed position: towm"),
    ],
)
def test_what_cannot_work_is_refused_before_data_is_read(config: Train, message: str) -> None:
    """Each mistake is named with what is allowed, by validate already."""
    with pytest.raises(CaseError) as caught:
        check_training(config, "classification", COLUMNS)
    assert message in str(caught.value)
    assert caught.value.where.startswith("train")


def test_validate_needs_no_columns() -> None:
    """Families and parameters are checked before the features are known."""
    check_training(declared(), "classification")
    check_training(declared("sklearn.linear_model.Ridge", encoders=()), "regression")
    with pytest.raises(CaseError):
        check_training(declared(parameters={"max_itr": 5}), "classification")


def test_encoded_columns_come_first_and_names_become_positions() -> None:
    """The encoders' order, then the rest; categorical columns may be named; seed and threads are passed on."""
    named = declared(parameters={"categorical_features": ["town", "sex"]}, seed=7)
    pipeline = build_pipeline(named, "classification", COLUMNS)
    assert [names for _, _, names in pipeline[0].transformers] == [["town", "sex"], ["age", "income"]]
    assert pipeline[-1].categorical_features == [0, 1]
    assert pipeline[-1].random_state == 7
    forest = build_pipeline(declared("sklearn.ensemble.RandomForestClassifier", threads=2), "classification", COLUMNS)
    assert forest[-1].n_jobs == 2


def test_a_column_goes_through_several_encoders_in_turn() -> None:
    """An imputer, then a scaler: linear models need both."""
    numbers = ("age", "income")
    config = declared(
        "sklearn.linear_model.LogisticRegression",
        encoders=(
            Encoder(columns=numbers, family="sklearn.impute.SimpleImputer"),
            Encoder(columns=numbers, family="sklearn.preprocessing.StandardScaler"),
            ORDINAL,
        ),
    )
    pipeline = build_pipeline(config, "classification", COLUMNS)
    chain = pipeline[0].transformers[0][1]
    assert [type(step).__name__ for _, step in chain.steps] == ["SimpleImputer", "StandardScaler"]


def test_not_a_number_can_be_declared_and_has_a_digest() -> None:
    """YAML's .nan reaches the encoder, though no JSON, and so no digest, could hold it."""
    parameters = {"handle_unknown": "use_encoded_value", "unknown_value": float("nan")}
    encoder = Encoder(columns=("town", "sex"), family=ORDINAL.family, parameters=parameters)
    config = declared(encoders=(encoder,))
    assert digest_of(config.model_dump(mode="json")) == config.digest
    encoder = build_pipeline(config, "classification", COLUMNS)[0].transformers[0][1]
    assert encoder.unknown_value != encoder.unknown_value
