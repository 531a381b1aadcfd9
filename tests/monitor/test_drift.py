"""Drift of columns of every awkward kind, with Evidently."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tasks.features.results import Column
from tasks.monitor.drift import decide_drift, measure_drift
from tasks.monitor.results import ColumnDrift
from tasks.statistics.permutation import benjamini_hochberg

TEXTS = ("town", "code", "blank", "gone_town")


def table(rows: int, seed: int, moved: bool = False) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    empty = np.full(rows, np.nan)
    return pd.DataFrame(
        {
            "steady": random.normal(size=rows),
            "tiny": random.normal(size=rows) * 1e-6 + (3e-6 if moved else 0),
            "huge": random.normal(size=rows) * 1e12 + (3e12 if moved else 0),
            "constant": np.ones(rows),
            "was_constant": random.normal(size=rows) if moved else np.zeros(rows),
            "empty": empty,
            "gone": empty if moved else random.normal(size=rows),
            "sparse": np.where(random.random(rows) < 0.01, 1.0, np.nan),
            "infinite": np.where(random.random(rows) < 0.1, np.inf, random.random(rows)),
            "flag": pd.array(random.random(rows) < 0.5, "boolean"),
            "count": pd.array(random.integers(0, 9, rows), "Int64"),
            "town": random.choice(["York", "Bath"], rows, p=[0.9, 0.1] if moved else [0.5, 0.5]),
            "code": [f"c{i}" for i in random.integers(0, 5000, rows)],
            "blank": np.array([None] * rows, dtype=object),
            "gone_town": np.array([None if moved else "York"] * rows, dtype=object),
            "prediction": random.random(rows),
        },
        index=pd.date_range("2013-03-30", periods=rows, freq="min", tz="America/New_York"),
    )


def test_awkward_columns_are_compared_or_noted(tmp_path):
    """Scale, type, gaps, infinities and thousands of values neither crash it nor hide a move."""
    names = table(1, 0).columns.drop("prediction")
    columns = [Column(name=name, kind="text" if name in TEXTS else "number", origin="request") for name in names]
    found = judged(table(1000, 1), table(1000, 7, moved=True), columns, tmp_path)

    assert {name for name, column in found.items() if column.drifted} == {
        "tiny", "huge", "was_constant", "gone", "town", "gone_town",
    }  # fmt: skip
    assert {name for name, column in found.items() if column.drifted is None} == {"empty", "blank", "sparse"}
    assert found["empty"].note == "empty then and now"
    assert found["sparse"].note.startswith("only ")
    assert found["gone"].note.endswith("empty values: 0% then, 100% now")
    assert (found["constant"].distance, found["constant"].p_value) == (0, 1)

    still = judged(table(1000, 1), table(1000, 3), columns, tmp_path)
    assert not any(column.drifted for column in still.values()), "nothing has moved, however few the rows"


def test_a_move_counts_when_it_is_no_chance_and_far_enough(tmp_path):
    """A small true move is no drift with a million rows; chance is none with two hundred, however far it goes."""
    column = [Column(name="steady", kind="number", origin="request")]
    many = table(100_000, 4)[["steady", "prediction"]]
    nudged = judged(many, many.assign(steady=many["steady"] + 0.03), column, tmp_path)["steady"]
    assert nudged.p_value < 0.01
    assert not nudged.drifted
    few = judged(table(110, 6), table(110, 25), column, tmp_path)["steady"]
    assert few.distance > 0.1
    assert few.p_value > 0.05
    assert not few.drifted


def judged(then: pd.DataFrame, now: pd.DataFrame, columns: list[Column], folder: Path) -> dict[str, ColumnDrift]:
    """Each column by name, adjusted for the others."""
    found = measure_drift(then, now, columns, folder).columns
    q = benjamini_hochberg({column.column: column.p_value for column in found})
    return {column.column: decide_drift(column, q.get(column.column), 0.05) for column in found}
