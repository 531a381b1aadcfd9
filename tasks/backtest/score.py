"""Scores of a release in a month, and the gain of a policy over another on the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tasks.backtest.results import MonthScore
from tasks.core.errors import DataError
from tasks.core.files import atomic_path
from tasks.core.places import Places
from tasks.monitor.signal import Window
from tasks.monitor.tabular.labels_and_predictions import labels_and_predictions
from tasks.monitor.tabular.outcomes import join_outcomes
from tasks.predict.tabular import read_predictions
from tasks.statistics.bootstrap import MIN_CLUSTERS, paired_bootstrap
from tasks.statistics.metric_catalog import LossName
from tasks.train.classes import Classes
from tasks.train.config import Target
from tasks.train.metrics import compute_metrics, losses

if TYPE_CHECKING:
    import pandas as pd

Task = Literal["classification", "regression"]
SHOWN: dict[Task, tuple[str, str]] = {"classification": ("brier", "auc"), "regression": ("rmse", "r2")}
LOSS: dict[Task, LossName] = {"classification": "brier", "regression": "squared_error"}
CONFIDENCE = 0.95


def score(window: Window, target: Target, classes: Classes, examples: Path, places: Places) -> MonthScore:
    """Score the predictions of a window by the outcomes in `examples`.

    The losses are written to STATE/scores/MONTH-RELEASE12.parquet. Raises: DataError when no outcome is known.
    """
    predictions = read_predictions(places.predictions, window.case, window.release, window.start, window.end)
    joined = join_outcomes(predictions, examples, target.column).rows
    known = joined.dropna(subset="outcome").sort_values("example_id")
    if known.empty:
        raise DataError(
            f"No outcome of {window.start:%Y-%m} was known by {window.end:%Y-%m-%d}.",
            where=f"{window.case}, column {target.column}",
            found=f"{len(predictions):,} examples without an outcome",
            todo="End the replay earlier, or replay a case whose outcomes arrive within the month.",
        )
    y, p = labels_and_predictions(known, "outcome", classes)
    path = places.state / "scores" / f"{window.start:%Y-%m}-{window.release[:12]}.parquet"
    table = known[["example_id"]].assign(
        day=known["event_timestamp"].dt.strftime("%Y-%m-%d"), loss=losses(LOSS[target.task], y, p)
    )
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)
    return MonthScore(release=window.release, rows=len(known), metrics=compute_metrics(y, p, target.task), losses=path)


def gain(of: Sequence[Path], over: Sequence[Path]) -> dict[str, float | int | None]:
    """How much lower the mean loss is, with the two-sided bounds of a paired bootstrap.

    Days are resampled, not rows: examples of one day are alike, and resampled rows would give too narrow bounds. Bounds
    are None where there are too few days. Raises: ValueError when the examples are not the same.
    """
    policy, baseline = _read(of), _read(over)
    if not policy["example_id"].equals(baseline["example_id"]):
        raise ValueError("losses of the same examples are needed")
    two_sided, days = (1 + CONFIDENCE) / 2, policy["day"].tolist()
    found = paired_bootstrap(
        policy["loss"].to_numpy(), baseline["loss"].to_numpy(), confidence=two_sided, clusters=days
    )
    enough = policy["day"].nunique() >= MIN_CLUSTERS
    return {
        "mean": 0.0 - found.difference,
        "low": 0.0 - found.high if enough else None,
        "high": 0.0 - found.low if enough else None,
        "rows": found.rows,
    }


def _read(paths: Sequence[Path]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)
