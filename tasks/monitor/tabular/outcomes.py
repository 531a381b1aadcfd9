"""Join predictions with the outcomes that have arrived since, by ids that name one row for good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import DataError
from tasks.monitor.results import BatchQuality

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ScoredWithOutcomes:
    """Scored rows with their outcomes, empty while unknown, and what a person should know of them."""

    rows: pd.DataFrame  # example_id, event_timestamp, features, predictions, outcome
    examples: Path | None = None  # the features of the same ids, for another release; None: those in `rows`
    notes: tuple[str, ...] = ()
    quality: tuple[BatchQuality, ...] = ()
    origins: Mapping[str, int] = field(default_factory=dict)


NUMBERED = (
    "No outcome was joined: rows are named by their position (row_number in the source's SQL), and a position is "
    "another row in the next delivery. Name rows by a key column, or by their content as driftline new does."
)


def without_outcomes(predictions: pd.DataFrame, quality: tuple[BatchQuality, ...] = ()) -> ScoredWithOutcomes:
    """Predictions of rows that have no lasting name."""
    return ScoredWithOutcomes(predictions.assign(outcome=float("nan")), notes=(NUMBERED,), quality=quality)


def join_outcomes(
    predictions: pd.DataFrame, examples: Path, target: str, quality: tuple[BatchQuality, ...] = ()
) -> ScoredWithOutcomes:
    """Add the column `outcome` (float64 or text, empty while unknown) from a Parquet file of examples as known by now.

    The rows and their order stay those of `predictions`; an example that is not in the file has no outcome yet. An id
    that names a row of another moment now is not joined: it is no name of a row, such as a position in a file.

    Raises: DataError when the file lacks example_id or the target, or has two outcomes for one example.
    """
    import pyarrow.parquet as pq

    columns = pq.read_schema(examples).names
    missing = [name for name in ("example_id", "event_timestamp", target) if name not in columns]
    if missing:
        raise DataError(
            "The examples have no outcomes.",
            where=str(examples),
            found=f"no column {', '.join(missing)}",
            todo="Name the target of the case as the examples SQL calls it.",
        )
    now = pq.read_table(examples, columns=["example_id", "event_timestamp", target]).to_pandas()
    now["event_timestamp"] = now["event_timestamp"].astype("datetime64[us, UTC]")
    known = now.loc[now[target].notna(), ["example_id", target]].drop_duplicates()
    twice = known.loc[known["example_id"].duplicated(), "example_id"]
    if not twice.empty:
        raise DataError(
            "An example has two different outcomes.",
            where=str(examples),
            found=f"{len(twice):,} such examples, for instance {twice.iloc[0]}",
            allowed="one outcome an example",
            todo="Correct the examples SQL of the case.",
        )
    moments = predictions["example_id"].map(
        now.drop_duplicates("example_id").set_index("example_id")["event_timestamp"]
    )
    moved = moments.notna() & (moments != predictions["event_timestamp"].astype("datetime64[us, UTC]"))
    outcome = predictions["example_id"].map(known.set_index("example_id")[target]).mask(moved)
    notes: tuple[str, ...] = ()
    if moved.any():
        notes = (
            f"{int(moved.sum()):,} predictions have no outcome: their example_id names a row of another moment now. "
            "Name rows by a key, or by their content, in case.yaml.",
        )
    names = isinstance(next(iter(known[target]), None), str)
    rows = predictions.assign(outcome=outcome if names else outcome.astype("float64"))
    return ScoredWithOutcomes(rows, examples, notes, quality)
