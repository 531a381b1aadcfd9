"""Messages as vectors, and how well two sets of them can be told apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

BATCH = 64
TOKENS = 256  # of a message that are read, as the usual models were trained to
FOLDS = 5
FEWEST = 50  # messages on a side, below which nothing is said


def embed(texts: Sequence[str], weights: Path) -> np.ndarray:
    """Unit vectors, one a text: the mean over its tokens of the model whose weights these are. Shape: texts x size."""
    import numpy as np
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    tokenizer: Any = AutoTokenizer.from_pretrained(weights.parent)
    logging.disable_progress_bar()
    try:
        network: Any = AutoModel.from_pretrained(weights.parent, use_safetensors=True).eval()
    finally:
        logging.enable_progress_bar()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # batches of like lengths pad little
    found: list[Any] = [None] * len(texts)
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            read = tokenizer(
                [texts[i] for i in some], padding=True, truncation=True, max_length=TOKENS, return_tensors="pt"
            )
            said = read["attention_mask"][..., None]
            mean = (network(**read).last_hidden_state * said).sum(1) / said.sum(1)
            for i, vector in zip(some, torch.nn.functional.normalize(mean).numpy(), strict=True):
                found[i] = vector
    return np.array(found)


def told_apart(then: np.ndarray, now: np.ndarray) -> tuple[float, float] | None:
    """The AUC of a linear classifier between two sets of vectors, cross-validated, and what chance adds to .5 at most.

    None when a side has too few.
    """
    import numpy as np
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
    # three standard deviations of the rank statistic when both sides are drawn alike
    chance = 3 * math.sqrt((len(then) + len(now) + 1) / (12 * len(then) * len(now)))
    return round(float(roc_auc_score(side, chances)), 6), round(chance, 6)
