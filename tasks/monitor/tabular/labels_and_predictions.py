"""The two sides of a comparison: outcomes and predictions of a window, and of the release's hold-out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from tasks.train.classes import Class, encode_target, predictions_in

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

LabelsAndPredictions: TypeAlias = "tuple[np.ndarray, np.ndarray]"  # (rows,) and (rows,) or (rows, classes)


def labels_and_predictions(rows: pd.DataFrame, outcome: str, classes: Sequence[Class]) -> LabelsAndPredictions:
    return encode_target(rows[outcome], classes), predictions_in(rows, classes)


def most_biased_class(side: LabelsAndPredictions, classes: Sequence[Class]) -> int | None:
    """The class whose predicted share is furthest from the observed one; the second of two; None of a regression."""
    import numpy as np

    y, p = side
    if p.ndim == 1 or not len(y):
        return len(classes) - 1 if classes else None
    return int(np.argmax([abs(errors_of(side, number).mean()) for number in range(p.shape[1])]))


def errors_of(side: LabelsAndPredictions, number: int | None) -> np.ndarray:
    """Prediction minus outcome of each row: of the class with this number, or of a regression."""
    y, p = side
    return p - y if number is None else (p if p.ndim == 1 else p[:, number]) - (y == number)
