"""What fitting a table takes, before it starts: rough figures of one thread, corrected by what earlier trials took."""

from __future__ import annotations

import math
from typing import Any

from tasks.search.problem import Cost
from tasks.search.tabular.space import arm_of

START = 0.5  # seconds of encoding, predicting and writing
NODE_BYTES = 150  # of a tree, with its values
COPIES = 8  # of the table in a process that fits


def estimate_fit(section: dict[str, Any], rows: int, columns: int, outputs: int) -> Cost:
    """Seconds and bytes of fitting so many rows, six times where probabilities are calibrated by five folds."""
    cost = _estimate_one(section, rows, columns, outputs)
    fits = 6 if section.get("calibration") else 1
    return Cost(START + fits * (cost.seconds - START), cost.memory)


def _estimate_one(section: dict[str, Any], rows: int, columns: int, outputs: int) -> Cost:
    parameters = section.get("parameters", {})
    arm = arm_of(section["family"])
    table = 8 * rows * columns
    if arm == "boosting":
        steps = parameters.get("max_iter", 100)
        leaves = parameters.get("max_leaf_nodes") or 31
        seconds = outputs * steps * (rows * columns * 4e-9 + leaves * columns * 256 * 2e-9 + 1e-3)
        return Cost(START + seconds, COPIES * table + outputs * steps * leaves * NODE_BYTES)
    if arm in ("forest", "extra_trees"):
        trees = parameters.get("n_estimators", 100)
        share = parameters.get("max_features", 0.3)
        tried = share if isinstance(share, float) else 0.3
        work = rows * math.log2(max(rows, 2)) * columns * tried * trees
        nodes = 2 * rows / parameters.get("min_samples_leaf", 1) * trees
        seconds = work * (2e-8 if arm == "forest" else 8e-9)
        return Cost(START + seconds, int(COPIES * table + nodes * (NODE_BYTES + 8 * outputs)))
    if arm == "network":
        width = sum(parameters.get("hidden_layer_sizes", [100]))
        return Cost(START + rows * parameters.get("max_iter", 200) * (columns + 30) * width * 1.5e-9, COPIES * table)
    products = columns**2 / 2 if "PolynomialFeatures" in str(section.get("encoders")) else columns
    return Cost(START + rows * products * outputs * 2e-7, int(COPIES * 8 * rows * products))
