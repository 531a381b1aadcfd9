"""Whether the champion relies on other features than on its hold-out, and whether that may be chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.statistics.permutation import row_permutation_p_value
from tasks.train.metrics import losses
from tasks.train.tabular.importance import SAMPLE_ROWS
from tasks.train.tabular.scoring import Model, predict

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def permutation_importance(model: Model, rows: pd.DataFrame, outcomes: np.ndarray, seed: int) -> np.ndarray:
    """The loss that permuting each feature adds to each of a sample of rows, of shape (rows, features).

    The mean over rows is permutation importance. Source: Breiman, Random Forests (2001).
    """
    import numpy as np

    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(len(rows))[:SAMPLE_ROWS])
    values = {column.name: rows[column.name].to_numpy()[chosen] for column in model.columns}
    loss = "brier" if model.classifies else "squared_error"
    before = losses(loss, outcomes[chosen], predict(model, values))
    added = []
    for column in model.columns:
        permuted = {**values, column.name: values[column.name][random.permutation(len(chosen))]}
        added.append(losses(loss, outcomes[chosen], predict(model, permuted)) - before)
    return np.stack(added, axis=1)


def importance_shares(sums: np.ndarray) -> np.ndarray:
    """Each feature's share of the added loss, over the last axis; all 0 where no feature helps."""
    import numpy as np

    helpful = np.maximum(sums, 0)
    total = helpful.sum(axis=-1, keepdims=True)
    return np.divide(helpful, total, out=np.zeros_like(helpful), where=total > 0)


def importance_p_value(reference: np.ndarray, window: np.ndarray, seed: int) -> float:
    """The p-value of the shift of the shares, from the added losses of both sides."""
    import numpy as np

    return row_permutation_p_value(
        reference, window, lambda a, b: np.abs(importance_shares(b) - importance_shares(a)).sum(axis=1), seed
    )
