"""A classifier two-sample test on embeddings: whether two sets of messages differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.statistics.normal_tests import auc_p_value

if TYPE_CHECKING:
    import numpy as np

FOLDS = 5
MIN_MESSAGES = 50  # on each side


def classifier_two_sample_test(then: np.ndarray, now: np.ndarray) -> tuple[float, float] | None:
    """The cross-validated AUC of a linear classifier between two sets of vectors, and its p-value.

    Both arrays have the shape (messages, dimensions). None when a side has too few.
    Source: Lopez-Paz and Oquab, Revisiting Classifier Two-Sample Tests (2017).
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    if min(len(then), len(now)) < MIN_MESSAGES:
        return None
    vectors = np.concatenate([then, now])
    side = np.repeat([0, 1], [len(then), len(now)])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    scores = cross_val_predict(model, vectors, side, cv=folds, method="predict_proba")[:, 1]
    auc = float(roc_auc_score(side, scores))
    # a permutation test would refit the model hundreds of times
    return round(auc, 6), auc_p_value(auc, len(then), len(now))
