"""A calibrated classifier: the model behind it, and its calibration of the model's scores."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


def calibrated_model(estimator: Any) -> Any | None:
    """The fitted model behind a calibrated classifier; None of another estimator."""
    parts = getattr(estimator, "calibrated_classifiers_", ())
    return parts[0].estimator if parts else None


class CalibratedScores:
    """In place of a boosting's loss, which turns its sums into probabilities."""

    def __init__(self, estimator: Any) -> None:
        self._calibrated = copy(estimator.calibrated_classifiers_[0])
        self._calibrated.estimator = _Scores(self._calibrated.estimator.classes_)

    def predict_proba(self, sums: np.ndarray) -> np.ndarray:
        """The probabilities of sums of shape (rows, 1), or (rows, classes)."""
        return np.asarray(self._calibrated.predict_proba(sums))


class _Scores(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose rows are its scores."""

    def __init__(self, classes_: np.ndarray) -> None:
        self.classes_ = classes_

    def decision_function(self, sums: np.ndarray) -> np.ndarray:
        return sums[:, 0] if sums.shape[1] == 1 else sums
