"""How good a release was in a month, and what a policy gained over another on the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tasks.backtest.results import MonthScore
from tasks.core.errors import DataError
from tasks.core.files import atomic_path
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


def score(
    case: str,
    release: str,
    target: Target,
    classes: Classes,
    examples: Path,
    start: datetime,
    end: datetime,
    predictions: Path,
    folder: Path,
) -> MonthScore:
    """Hold what a release predicted for start <= event_timestamp < end against the outcomes in `examples`.

    The losses go to FOLDER/MONTH-RELEASE12.parquet. Raises: DataError when no outcome is known.
    """
    said = read_predictions(predictions, case, release, start, end)
    known = join_outcomes(said, examples, target.column).dropna(subset="outcome").sort_values("example_id")
    if known.empty:
        raise DataError(
            f"No outcome of {start:%Y-%m} was known by {end:%Y-%m-%d}.",
            where=f"{case}, column {target.column}",
            found=f"{len(said):,} examples without an outcome",
            todo="End the replay earlier, or replay a case whose outcomes arrive within the month.",
        )
    y, p = labels_and_predictions(known, "outcome", classes)
    path = folder / f"{start:%Y-%m}-{release[:12]}.parquet"
    kept = known[["example_id"]].assign(
        day=known["event_timestamp"].dt.strftime("%Y-%m-%d"), loss=losses(LOSS[target.task], y, p)
    )
    with atomic_path(path) as temporary:
        kept.to_parquet(temporary, index=False)
    return MonthScore(release=release, rows=len(known), metrics=compute_metrics(y, p, target.task), losses=path)


def gain(of: Sequence[Path], over: Sequence[Path]) -> dict[str, float | int | None]:
    """How much lower the mean loss is, with a paired bootstrap's two-sided bounds.

    Days are resampled, not rows: examples of one day share its weather, and rows alone would promise too much. Bounds
    are None where the days are too few. Raises: ValueError when the examples are not the same.
    """
    mine, theirs = _read(of), _read(over)
    if not mine["example_id"].equals(theirs["example_id"]):
        raise ValueError("losses of the same examples are needed")
    two_sided, days = (1 + CONFIDENCE) / 2, mine["day"].tolist()
    found = paired_bootstrap(mine["loss"].to_numpy(), theirs["loss"].to_numpy(), confidence=two_sided, clusters=days)
    enough = mine["day"].nunique() >= MIN_CLUSTERS
    return {
        "mean": 0.0 - found.difference,
        "low": 0.0 - found.high if enough else None,
        "high": 0.0 - found.low if enough else None,
        "rows": found.rows,
    }


def _read(paths: Sequence[Path]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)
