"""A compiled boosting predicts what scikit-learn predicts, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression

from tasks.train.tabular import compiled
from tasks.train.tabular.compiled import compile_estimator

CATEGORICAL = [1, 4]
TREES: dict[str, Any] = {"max_iter": 25, "random_state": 0}


def table(rows: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and two categorical columns, 5 % missing; the categories have gaps. And a value to predict."""
    random = np.random.default_rng(1)
    matrix = random.normal(size=(rows, 6))
    matrix[:, 1] = random.integers(0, 40, rows)
    matrix[:, 4] = random.integers(0, 7, rows) * 3
    value = matrix[:, 0] + matrix[:, 1] % 3 + random.normal(size=rows)
    matrix[random.random(matrix.shape) < 0.05] = np.nan
    return matrix, value


def unknown(matrix: np.ndarray) -> np.ndarray:
    """The same rows, some with categories that no training row had."""
    changed = matrix.copy()
    changed[::3, 1] = 77
    changed[::5, 4] = 4
    return changed


@pytest.mark.parametrize("categorical", [None, CATEGORICAL], ids=["numbers", "categories"])
@pytest.mark.parametrize("classes", [2, 3, 9])
def test_class_probabilities_are_equal_bit_by_bit(classes: int, categorical: list[int] | None) -> None:
    """Alone and in company, with gaps and unknown categories."""
    matrix, value = table()
    labels = np.searchsorted(np.quantile(value, np.linspace(0, 1, classes + 1)[1:-1]), value)
    model = HistGradientBoostingClassifier(categorical_features=categorical, **TREES).fit(matrix, labels)
    fast = compile_estimator(model)
    assert fast
    for rows in (matrix, unknown(matrix)):
        expected = model.predict_proba(rows)
        assert np.array_equal(fast.predict(rows), expected)
        alone = np.concatenate([fast.predict(rows[i : i + 1]) for i in range(100)])
        assert np.array_equal(alone, expected[:100])


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "poisson", "gamma", "quantile"])
def test_values_of_each_loss_are_equal_bit_by_bit(loss: str) -> None:
    matrix, value = table()
    value = np.abs(value) + 0.1
    quantile = {"quantile": 0.3} if loss == "quantile" else {}
    model = HistGradientBoostingRegressor(loss=loss, categorical_features=CATEGORICAL, **quantile, **TREES)
    model.fit(matrix, value)
    fast = compile_estimator(model)
    assert fast
    assert np.array_equal(fast.predict(unknown(matrix)), model.predict(unknown(matrix)))


def test_a_column_without_any_category_is_no_obstacle() -> None:
    matrix, value = table(400)
    matrix[:, 4] = np.nan
    model = HistGradientBoostingRegressor(categorical_features=CATEGORICAL, **TREES).fit(matrix, value)
    fast = compile_estimator(model)
    assert fast
    assert np.array_equal(fast.predict(matrix), model.predict(matrix))


def test_other_estimators_are_not_compiled() -> None:
    matrix, value = np.nan_to_num(table(200)[0]), table(200)[1] > 1
    for model in (LogisticRegression(max_iter=500), RandomForestClassifier(5)):
        assert compile_estimator(model.fit(matrix, value)) is None
    assert compile_estimator(TransformedTargetRegressor(HistGradientBoostingRegressor())) is None


def test_a_model_that_differs_in_one_bit_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probes decide: whatever a later version changes, no other prediction is served."""
    matrix, value = table(400)
    model = HistGradientBoostingRegressor(**TREES).fit(matrix, value)
    assert compile_estimator(model)
    baseline, loss = model._baseline_prediction, model._loss
    monkeypatch.setattr(compiled, "boosting_parts", lambda _: (np.nextafter(baseline, np.inf), loss))
    assert compile_estimator(model) is None
