"""A compiled boosting or forest predicts what scikit-learn predicts, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression

from tasks.train.compat import encoded_boosting
from tasks.train.tabular import bitvectors, compiled
from tasks.train.tabular.bitvectors import MaskedTrees, mask_trees
from tasks.train.tabular.compiled import TreeliteTrees, compile_estimator, compile_forest, predict_by_trees

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
    monkeypatch.setattr(bitvectors, "boosting_parts", lambda _: (np.nextafter(baseline, np.inf), loss))
    assert compile_estimator(model) is None


@pytest.mark.parametrize("limit", ["MAX_BYTES_A_TREE", "MAX_TABLE_BYTES"])
def test_what_masks_cannot_hold_goes_through_treelite(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large trees and wide tables, equal to the last bit as well."""
    matrix, value = table()
    small = HistGradientBoostingRegressor(categorical_features=CATEGORICAL, **TREES).fit(matrix, value)
    large = HistGradientBoostingRegressor(
        max_leaf_nodes=100, min_samples_leaf=5, categorical_features=CATEGORICAL, **TREES
    )
    masked, unmasked = compile_estimator(small), compile_estimator(large.fit(matrix, value))
    assert masked
    assert unmasked
    assert isinstance(masked.trees, MaskedTrees)
    assert isinstance(unmasked.trees, TreeliteTrees)
    assert masked.takes(10**6)
    assert not unmasked.takes(10**6)
    assert np.array_equal(unmasked.predict(unknown(matrix)), large.predict(unknown(matrix)))
    monkeypatch.setattr(bitvectors, limit, 1)
    assert mask_trees(small, encoded_boosting(small)[1]) is None


@pytest.mark.parametrize("missing", [True, False])
@pytest.mark.parametrize(
    ("family", "classes"),
    [
        (RandomForestClassifier, 2),
        (RandomForestClassifier, 5),
        (ExtraTreesClassifier, 3),
        (RandomForestRegressor, 0),
        (ExtraTreesRegressor, 0),
    ],
)
def test_forests_are_equal_bit_by_bit(family: Any, classes: int, missing: bool) -> None:
    """With and without missing values, alone and in company, and as scikit-learn's own prediction."""
    matrix, value = table(600)
    matrix = (matrix if missing else np.nan_to_num(matrix)).astype(np.float32)
    target = np.digitize(value, np.quantile(value, np.linspace(0, 1, classes + 1)[1:-1])) if classes else value
    forest = family(30, random_state=0, class_weight="balanced") if classes else family(30, random_state=0)
    fast = compile_forest(forest.fit(matrix, target))
    assert fast
    expected = predict_by_trees(forest, matrix, slice(None))
    assert np.array_equal(fast.predict(matrix), expected)
    assert np.array_equal(np.concatenate([fast.predict(matrix[i : i + 1]) for i in range(50)]), expected[:50])
    own = forest.predict_proba(matrix) if classes else forest.predict(matrix)[:, None]
    assert np.array_equal(expected, own)


def test_a_forest_that_differs_or_is_large_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, value = table(300)
    forest = RandomForestRegressor(5, random_state=0).fit(matrix, value)
    assert compile_forest(forest)
    assert compile_forest(RandomForestRegressor(2).fit(matrix, np.c_[value, value])) is None
    monkeypatch.setattr(compiled, "MAX_FOREST_NODES", 100)
    assert compile_forest(forest) is None
    monkeypatch.undo()
    monkeypatch.setattr(compiled, "predict_by_trees", lambda *_: np.zeros((compiled.PROBES, 1)))
    assert compile_forest(forest) is None
