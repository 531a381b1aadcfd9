"""Reweighing: training rows are weighed so that the outcome and the groups of people are independent.

Source: Kamiran and Calders, Data Preprocessing Techniques for Classification without Discrimination (2012).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def balancing_weights(groups: pd.DataFrame, outcome: np.ndarray) -> np.ndarray:
    """The weight of each row: how often its group and outcome would meet by chance, over how often they do.

    `groups` has a column for each sensitive attribute; a missing value is a group of its own. The weights sum to the
    number of rows.
    """
    import numpy as np
    import pandas as pd

    texts = groups.astype(object).where(groups.notna(), "missing").astype(str).agg("\0".join, axis=1)
    of_group, _ = pd.factorize(texts)
    of_outcome, _ = pd.factorize(pd.Series(outcome))
    counts = np.zeros((of_group.max() + 1, of_outcome.max() + 1))
    np.add.at(counts, (of_group, of_outcome), 1)
    by_chance = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0, keepdims=True) / len(outcome)
    return np.asarray((by_chance / np.maximum(counts, 1))[of_group, of_outcome])
