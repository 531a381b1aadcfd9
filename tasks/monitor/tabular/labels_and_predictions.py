"""What is compared: outcomes and predictions of a window, and of the release's hold-out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from tasks.train.classes import Class, answers_in, numbers_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Side: TypeAlias = "tuple[np.ndarray, np.ndarray]"  # outcomes as numbers, and what the model answered


def labels_and_predictions(rows: pd.DataFrame, outcome: str, classes: Sequence[Class]) -> Side:
    return numbers_of(rows[outcome], classes), answers_in(rows, classes)


def most_biased_class(side: Side, classes: Sequence[Class]) -> int | None:
    """The class whose predicted share is furthest from the seen one, the second of two; None of numbers."""
    import numpy as np

    y, p = side
    if p.ndim == 1 or not len(y):
        return len(classes) - 1 if classes else None
    return int(np.argmax([abs(errors_of(side, of).mean()) for of in range(p.shape[1])]))


def errors_of(side: Side, of: int | None) -> np.ndarray:
    """By how much each prediction is too high: of a class, or of a number."""
    y, p = side
    return p - y if of is None else (p if p.ndim == 1 else p[:, of]) - (y == of)
