"""Joining outcomes: what has not arrived is missing, what contradicts itself is refused."""

from __future__ import annotations

import pandas as pd
import pytest

from tasks.core.errors import DataError
from tasks.monitor.tabular.outcomes import join_outcomes

MOMENT = pd.Timestamp("2026-03-01", tz="UTC")
PREDICTIONS = pd.DataFrame(
    {"example_id": ["c", "a", "b", "d"], "event_timestamp": MOMENT, "prediction": [0.1, 0.2, 0.3, 0.4]}
)


def test_outcomes_meet_their_predictions_in_order(tmp_path):
    """Unknown targets and examples that are not in the file stay empty; a row told twice alike counts once."""
    known = pd.DataFrame({"example_id": ["a", "b", "c", "c", "z"], "late": pd.array([1, None, 0, 0, 1], "Int64")})
    known["event_timestamp"] = MOMENT
    known.to_parquet(tmp_path / "examples.parquet")
    joined = join_outcomes(PREDICTIONS, tmp_path / "examples.parquet", "late").rows
    assert joined["example_id"].tolist() == ["c", "a", "b", "d"]
    assert joined["outcome"].fillna(-1).tolist() == [0, 1, -1, -1]
    assert joined["outcome"].dtype == "float64"


def test_no_outcome_at_all_is_no_error(tmp_path):
    """A column of nothing, as DuckDB writes it before the first outcome."""
    pd.DataFrame({"example_id": ["a"], "event_timestamp": MOMENT, "late": [None]}).to_parquet(
        tmp_path / "examples.parquet"
    )
    assert join_outcomes(PREDICTIONS, tmp_path / "examples.parquet", "late").rows["outcome"].isna().all()


def test_contradictions_and_missing_columns_are_refused(tmp_path):
    """Two outcomes for one example, or no such column: the message names them."""
    pd.DataFrame({"example_id": ["a", "a"], "event_timestamp": MOMENT, "late": [0, 1]}).to_parquet(
        tmp_path / "examples.parquet"
    )
    with pytest.raises(DataError, match="two different outcomes"):
        join_outcomes(PREDICTIONS, tmp_path / "examples.parquet", "late")
    with pytest.raises(DataError, match="no column tardy"):
        join_outcomes(PREDICTIONS, tmp_path / "examples.parquet", "tardy")
