"""The weighted mean of several fitted pipelines as one estimator, which a model file can hold."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator


class Ensemble(BaseEstimator):  # type: ignore[misc]
    """Pipelines, each with its own encoders, and their weights. `fit` of this package fits each of them."""

    def __init__(self, pipelines: list[Any], weights: list[float]) -> None:
        self.pipelines = pipelines
        self.weights = weights

    def predict_proba(self, table: Any) -> Any:
        """The mean probabilities, shape (rows, classes)."""
        return np.average([each.predict_proba(table) for each in self.pipelines], axis=0, weights=self.weights)

    def predict(self, table: Any) -> Any:
        """The mean value of a regression, or the class of the highest mean probability."""
        if hasattr(self.pipelines[0], "predict_proba"):
            return self.pipelines[0].classes_[self.predict_proba(table).argmax(axis=1)]
        return np.average([each.predict(table) for each in self.pipelines], axis=0, weights=self.weights)


def pipelines_of(model: Any) -> list[Any]:
    """The pipelines of an ensemble, or the one that the model is, below thresholds by group."""
    model = getattr(model, "pipeline", model)
    return list(model.pipelines) if isinstance(model, Ensemble) else [model]


def copy_description(source: Any, target: Any) -> Any:
    """Let a fitted estimator have the columns and the positive class of another, and return it."""
    for name in ("columns_", "positive_"):
        if hasattr(source, name):
            setattr(target, name, getattr(source, name))
    return target


def inner_estimator(estimator: Any) -> Any:
    """The unfitted model behind the transformation of its target, or behind its calibration."""
    name = {"TransformedTargetRegressor": "regressor", "CalibratedClassifierCV": "estimator"}.get(
        type(estimator).__name__
    )
    return getattr(estimator, name) if name else estimator


def remove_threads(estimator: Any) -> None:
    """Threads sum their trees' votes in the order they finish; and one row is faster without threads."""
    calibrated = [each.estimator for each in getattr(estimator, "calibrated_classifiers_", ())]
    for part in (estimator, getattr(estimator, "regressor_", estimator), inner_estimator(estimator), *calibrated):
        if "n_jobs" in part.get_params(deep=False):
            part.set_params(n_jobs=None)
