"""How good predictions are: as a whole, month by month, and slice by slice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tasks.language import answer_scoring as answers
from tasks.train.metrics import CLASSIFICATION, HIGHER_IS_BETTER, REGRESSION, losses, measure, metrics_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = [
    "CLASSIFICATION",
    "HIGHER_IS_BETTER",
    "REGRESSION",
    "by_month",
    "by_value",
    "measure",
    "metrics_of",
    "per_example_loss",
    "worse_by",
]

per_example_loss = losses


def worse_by(metric: str, value: float, than: float) -> float:
    """How much worse a value is, whichever way the metric points; negative when it is better."""
    return than - value if metric in HIGHER_IS_BETTER | answers.HIGHER_IS_BETTER else value - than


def by_month(times: pd.Series, target: np.ndarray, prediction: np.ndarray, task: Any) -> dict[str, dict[str, float]]:
    """Metrics and rows for each month (YYYY-MM, UTC) of the examples' event_timestamp."""
    stamps = times.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    return by_value(stamps.astype("datetime64[M]").astype(str), target, prediction, task)


def by_value(
    values: Iterable[Any], target: np.ndarray, prediction: np.ndarray, task: Any
) -> dict[str, dict[str, float]]:
    """Metrics and rows for each value, in order; a missing value is the slice `missing`.

    A metric that a slice can't have (one class only) is left out of it; `rows` is always there.
    """
    import numpy as np
    import pandas as pd

    codes, found = pd.factorize(pd.Series(values), use_na_sentinel=True)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(-1, len(found) + 1))
    y, p = np.asarray(target, float)[order], np.asarray(prediction, float)[order]
    tables = {}
    for name, start, end in zip(["missing", *map(str, found)], starts, starts[1:], strict=False):
        if end > start:
            tables[name] = {"rows": int(end - start), **measure(y[start:end], p[start:end], task)}
    return dict(sorted(tables.items()))
