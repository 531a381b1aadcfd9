"""What a mitigation costs and gains: metrics and disparities of a model beside the same without the mitigation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.evaluate.config import Fairness
from tasks.evaluate.fairness import SMALL_GROUPS, fairness
from tasks.train.classes import Classes, encode_target, predictions_in
from tasks.train.config import Target
from tasks.train.metrics import compute_metrics

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

WITH, WITHOUT = "mitigated", "without mitigation"


def mitigation_table(
    config: Fairness | None, scored: pd.DataFrame, target: Target, classes: Classes, unmitigated: np.ndarray
) -> dict[str, dict[str, float]]:
    """Both sides: their metrics, and the upper bound of each disparity that the case has a gate for."""
    y = encode_target(scored[target.column], classes)
    return {
        name: _side(config, scored, y, prediction, target)
        for name, prediction in ((WITH, predictions_in(scored, classes)), (WITHOUT, unmitigated))
    }


def _side(
    config: Fairness | None, table: pd.DataFrame, y: np.ndarray, prediction: np.ndarray, target: Target
) -> dict[str, float]:
    found = dict(compute_metrics(y, prediction, target.task))
    if config is not None:
        _, criteria = fairness(config, table, y, prediction)
        gates = [each for each in criteria if each.name != SMALL_GROUPS and each.observed is not None]
        found |= {f"{each.name}, at most": each.observed for each in gates if each.observed is not None}
    return found
