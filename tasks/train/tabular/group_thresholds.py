"""A fitted model with a decision threshold for each group of people, as one estimator that a model file can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

MISSING = "missing"


class GroupThresholds(BaseEstimator):  # type: ignore[misc]
    """A fitted pipeline or ensemble whose scores are shifted so that the threshold of each group stands at 0.5.

    The shift is one of the logarithm of the odds. So ranks within a group stay, 0 and 1 stay, and everything that
    decides at 0.5 decides at the group's threshold. A group without a threshold is decided at 0.5.
    """

    def __init__(self, pipeline: Any, columns: list[str], thresholds: dict[str, float]) -> None:
        self.pipeline = pipeline
        self.columns = columns
        self.thresholds = thresholds

    @property
    def classes_(self) -> Any:
        return getattr(self.pipeline, "pipelines", [self.pipeline])[0].classes_

    def shift(self, scores: np.ndarray, table: Any) -> np.ndarray:
        """The scores of the positive class as they are decided on at 0.5; `table` has the sensitive columns."""
        limits = [self.thresholds.get(name, 0.5) for name in group_names(table, self.columns)]
        limit = np.asarray(limits)
        above, below = scores * (1 - limit), (1 - scores) * limit
        return np.asarray(above / (above + below))

    def predict_proba(self, table: Any) -> Any:
        """The shifted probabilities, shape (rows, 2)."""
        positive = list(self.classes_).index(getattr(self, "positive_", self.classes_[-1]))
        shifted = self.shift(self.pipeline.predict_proba(table)[:, positive], table)
        return np.stack([1 - shifted, shifted] if positive else [shifted, 1 - shifted], axis=1)

    def predict(self, table: Any) -> Any:
        return self.classes_[self.predict_proba(table).argmax(axis=1)]


def group_names(table: Any, columns: list[str]) -> list[str]:
    """The group of each row: the values of the columns, crossed; a missing value is one of its own."""
    return [", ".join(map(_name, row)) for row in zip(*(table[name] for name in columns), strict=True)]


def _name(value: Any) -> str:
    if isinstance(value, str):
        return value.strip() or MISSING
    if value is None or type(value).__name__ == "NAType" or value != value:
        return MISSING
    return f"{float(value):g}"


def rates_by_threshold(
    scores: np.ndarray, outcome: np.ndarray, limits: np.ndarray
) -> tuple[Mapping[str, np.ndarray], np.ndarray]:
    """Of one group, at each threshold: the rates by name, and the number of wrong decisions."""
    chosen = scores[None, :] >= limits[:, None]
    yes = outcome > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = {
            "selection_rate": chosen.mean(axis=1),
            "true_positive_rate": chosen[:, yes].sum(axis=1) / yes.sum(),
            "false_positive_rate": chosen[:, ~yes].sum(axis=1) / (~yes).sum(),
        }
    return rates, (chosen != yes).sum(axis=1)
