"""How well two sets of messages can be told apart by their vectors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

FOLDS = 5
FEWEST = 50  # messages on a side, below which nothing is said


def classifier_two_sample_test(then: np.ndarray, now: np.ndarray) -> tuple[float, float] | None:
    """The AUC of a linear classifier between two sets of vectors, cross-validated, and its p-value.

    None when a side has too few.
    """
    import numpy as np
    from scipy.stats import norm
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    if min(len(then), len(now)) < FEWEST:
        return None
    vectors = np.concatenate([then, now])
    side = np.repeat([0, 1], [len(then), len(now)])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    chances = cross_val_predict(model, vectors, side, cv=folds, method="predict_proba")[:, 1]
    auc = float(roc_auc_score(side, chances))
    # of the rank statistic when both sides are drawn alike; to deal anew would mean to fit anew, hundreds of times
    deviation = math.sqrt((len(then) + len(now) + 1) / (12 * len(then) * len(now)))
    return round(auc, 6), float(norm.sf((auc - 0.5) / deviation))
