"""Metrics of predictions by month and by slice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from tasks.train.metrics import compute_metrics

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Task = Literal["classification", "regression"]


def by_month(times: pd.Series, target: np.ndarray, prediction: np.ndarray, task: Task) -> dict[str, dict[str, float]]:
    """Metrics and rows for each month (YYYY-MM, UTC) of the examples' event_timestamp."""
    stamps = times.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    return by_value(stamps.astype("datetime64[M]").astype(str), target, prediction, task)


def by_value(
    values: Iterable[object], target: np.ndarray, prediction: np.ndarray, task: Task
) -> dict[str, dict[str, float]]:
    """Metrics and rows for each value, sorted; a missing value is the slice `missing`.

    A metric that can't be computed for a slice (of one class only) is left out of it; `rows` is always present.
    """
    import numpy as np
    import pandas as pd

    codes, names = pd.factorize(pd.Series(values), use_na_sentinel=True)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(-1, len(names) + 1))
    y, p = np.asarray(target, float)[order], np.asarray(prediction, float)[order]
    tables = {}
    for name, start, end in zip(["missing", *map(str, names)], starts, starts[1:], strict=False):
        if end > start:
            tables[name] = {"rows": int(end - start), **compute_metrics(y[start:end], p[start:end], task)}
    return dict(sorted(tables.items()))
