"""Whether the champion leans on other features than on its hold-out, and whether that may be chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.train.metrics import Loss, losses
from tasks.train.tabular.importance import ROWS
from tasks.train.tabular.scoring import Model, predict

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

DEALS = 1999
AT_ONCE = 200  # deals held in memory: some 6 MB


def harms_of(model: Model, rows: pd.DataFrame, outcomes: np.ndarray, seed: int) -> np.ndarray:
    """The loss that shuffling each feature adds to each of some rows: (rows, features). Its means are importance."""
    import numpy as np

    random = np.random.default_rng(seed)
    some = np.sort(random.permutation(len(rows))[:ROWS])
    values = {column.name: rows[column.name].to_numpy()[some] for column in model.columns}
    loss: Loss = "brier" if model.classifies else "squared_error"
    before = losses(loss, outcomes[some], predict(model, values))
    harms = []
    for column in model.columns:
        shuffled = {**values, column.name: values[column.name][random.permutation(len(some))]}
        harms.append(losses(loss, outcomes[some], predict(model, shuffled)) - before)
    return np.stack(harms, axis=1)


def shares_of(sums: np.ndarray) -> np.ndarray:
    """Each feature's share of the harm; all 0 where none helps."""
    import numpy as np

    helpful = np.maximum(sums, 0)
    total = helpful.sum(axis=-1, keepdims=True)
    return np.divide(helpful, total, out=np.zeros_like(helpful), where=total > 0)


def importance_chance(then: np.ndarray, now: np.ndarray, seed: int) -> float:
    """The p-value of the shift of shares: rows of both sides dealt anew, each with its harms."""
    import numpy as np

    pool, total = np.concatenate([then, now]), then.sum(axis=0) + now.sum(axis=0)
    random, found = np.random.default_rng(seed), []
    for start in range(0, DEALS, AT_ONCE):
        drawn = random.random((min(AT_ONCE, DEALS - start), len(pool)))
        picked = np.argpartition(drawn, len(now) - 1, axis=1)[:, : len(now)]
        chosen = np.zeros_like(drawn)
        np.put_along_axis(chosen, picked, 1.0, axis=1)
        dealt = chosen @ pool
        found.append(np.abs(shares_of(dealt) - shares_of(total - dealt)).sum(axis=1))
    observed = float(np.abs(shares_of(now.sum(axis=0)) - shares_of(then.sum(axis=0))).sum())
    return float((1 + (np.concatenate(found) >= observed - 1e-12).sum()) / (1 + DEALS))
