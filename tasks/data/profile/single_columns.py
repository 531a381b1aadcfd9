"""Adds to a profile how well each column alone tells the target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tasks.data.profile.results import ColumnProfile, TableProfile

if TYPE_CHECKING:
    import pandas as pd

HELD_OUT = 0.4  # share of the sampled rows that are scored; the others are fitted
MIN_ROWS = 60
MAX_WIDE = 4_000_000  # cells that are scored, so that 1,500 columns take seconds


def score_columns(
    profile: TableProfile, frame: pd.DataFrame, target: str, task: Literal["classification", "regression"]
) -> TableProfile:
    """The profile with each column's AUC or r2, and with the columns that make up the target, from sampled rows."""
    import numpy as np
    import pandas as pd

    from tasks.statistics.single_column import find_parts, single_column_scores

    # a column of one value tells something where it is empty
    varied = [column for column in profile.columns if column.distinct + bool(column.empty) > 1]
    scored = {column.name: column for column in varied if column.name != target and column.type != "json"}
    frame = frame.iloc[: max(2_000, MAX_WIDE // max(len(scored), 1))]
    truth = read_values(frame[target], profile.column(target))
    known = truth.notna().to_numpy()
    if known.sum() < MIN_ROWS or truth[known].nunique() < 2 or not scored:
        return profile.model_copy(update={"target": target})
    truth = truth[known]
    table = pd.DataFrame({name: read_values(frame[name], column)[known] for name, column in scored.items()})
    holdout = np.random.default_rng(0).random(len(table)) < HELD_OUT
    scores = single_column_scores(table, truth, holdout, task)
    parts = find_parts(table.select_dtypes("number"), truth, holdout) if task == "regression" else None
    columns = [
        column.model_copy(update={"alone": round(scores[column.name].value, 4), "is_leak": scores[column.name].is_leak})
        if column.name in scores
        else column
        for column in profile.columns
    ]
    return profile.model_copy(
        update={
            "columns": tuple(columns),
            "target": target,
            "metric": "r2" if task == "regression" else "auc",
            "parts": parts.columns if parts else (),
        }
    )


def read_values(values: pd.Series, column: ColumnProfile) -> pd.Series:
    """A column of the sample by its own type: numbers and moments as float64, texts as they are."""
    import pandas as pd

    if column.reading is not None and column.is_number:
        return pd.to_numeric(values, errors="coerce").astype("float64")
    if column.read_type in ("timestamp", "date"):
        form = column.reading.format if column.reading else None
        texts = values.str.strip() if form else values
        moments = pd.to_datetime(texts, format=form, utc=True, errors="coerce")
        return moments.astype("int64").where(moments.notna()).astype("float64")
    return values.astype("float64") if column.is_number else values.astype(object).where(values.notna())
