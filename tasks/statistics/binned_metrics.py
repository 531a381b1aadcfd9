"""Metrics computed from how many rows fall in each bin: arrays of shape (permutations, bins) give one value each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class BinnedMean:
    """The mean of a value that is known by bin."""

    values: np.ndarray  # of shape (bins,)

    def __call__(self, counts: np.ndarray) -> np.ndarray:
        return counts @ self.values / counts.sum(axis=1)


def auc(counts: np.ndarray) -> np.ndarray:
    """Area under the ROC curve; bins alternate between negatives and positives, lowest scores first.

    Rows of one bin tie. Source: Hanley and McNeil, The Meaning and Use of the Area under a ROC Curve (1982).
    """
    import numpy as np

    negatives, positives = counts[:, ::2], counts[:, 1::2]
    below = np.cumsum(negatives, axis=1) - negatives / 2
    return (positives * below).sum(axis=1) / (positives.sum(axis=1) * negatives.sum(axis=1))


def average_precision(counts: np.ndarray) -> np.ndarray:
    """The mean precision over positives, of bins in the order that `auc` takes."""
    import numpy as np

    negatives, positives = counts[:, ::2][:, ::-1], counts[:, 1::2][:, ::-1]
    hits, selected = np.cumsum(positives, axis=1), np.cumsum(positives + negatives, axis=1)
    return (positives * hits / np.maximum(selected, 1)).sum(axis=1) / positives.sum(axis=1)


def macro_f1(counts: np.ndarray) -> np.ndarray:
    """The mean F1 over classes that occur or are predicted; the bin of a row is classes * label + prediction."""
    import numpy as np

    classes = round(counts.shape[1] ** 0.5)
    confusions = counts.reshape(len(counts), classes, classes)
    total = confusions.sum(axis=1) + confusions.sum(axis=2)
    hits = np.diagonal(confusions, axis1=1, axis2=2)
    return np.nanmean(np.where(total > 0, 2 * hits / np.maximum(total, 1), np.nan), axis=1)
