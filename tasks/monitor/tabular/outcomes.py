"""Join predictions with the outcomes that have arrived since."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def join_outcomes(predictions: pd.DataFrame, examples: Path, target: str) -> pd.DataFrame:
    """Add the column `outcome` (float64 or text, empty while unknown) from a Parquet file of examples as known by now.

    The rows and their order stay those of `predictions`; an example that is not in the file has no outcome yet.
    Raises: DataError when the file lacks example_id or the target, or has two outcomes for one example.
    """
    import pyarrow.parquet as pq

    columns = pq.read_schema(examples).names
    missing = [name for name in ("example_id", target) if name not in columns]
    if missing:
        raise DataError(
            "The examples have no outcomes.",
            where=str(examples),
            found=f"no column {', '.join(missing)}",
            todo="Name the target of the case as the examples SQL calls it.",
        )
    known = pq.read_table(examples, columns=["example_id", target]).to_pandas()
    known = known[known[target].notna()].drop_duplicates()
    twice = known.loc[known["example_id"].duplicated(), "example_id"]
    if not twice.empty:
        raise DataError(
            "An example has two different outcomes.",
            where=str(examples),
            found=f"{len(twice):,} such examples, for instance {twice.iloc[0]}",
            allowed="one outcome an example",
            todo="Correct the examples SQL of the case.",
        )
    outcome = predictions["example_id"].map(known.set_index("example_id")[target])
    names = isinstance(next(iter(known[target]), None), str)
    return predictions.assign(outcome=outcome if names else outcome.astype("float64"))
