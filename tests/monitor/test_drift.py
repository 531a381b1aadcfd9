"""Drift of columns of every awkward kind, with Evidently."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tasks.features.results import Column
from tasks.monitor.drift import measure_drift

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


def test_awkward_columns_are_compared_or_said_not_to_be(tmp_path):
    """Scale, type, gaps, infinities and thousands of values neither crash it nor hide a move."""
    names = table(1, 0).columns.drop("prediction")
    columns = [Column(name=name, kind="text" if name in TEXTS else "number", origin="request") for name in names]
    drift = measure_drift(table(1000, 1), table(1000, 2, moved=True), columns, tmp_path)
    found = {column.column: column for column in drift.columns}

    assert {name for name, column in found.items() if column.drifted} == {
        "tiny", "huge", "was_constant", "gone", "town", "gone_town",
    }  # fmt: skip
    assert {name for name, column in found.items() if column.drifted is None} == {"empty", "blank", "sparse"}
    assert found["empty"].note == "empty then and now"
    assert found["sparse"].note.startswith("only ")
    assert found["gone"].note.endswith("empty values: 0% then, 100% now")
    assert found["constant"].distance == 0
    assert drift.share == round(6 / 12, 6)

    still = measure_drift(table(1000, 1), table(1000, 3), columns, tmp_path)
    assert still.share == 0, "nothing has moved, however few the rows"
    assert still.prediction is not None
    assert still.prediction_chance is not None
    assert still.prediction < 0.1 + still.prediction_chance

    few = measure_drift(table(150, 4), table(150, 5), columns[:1], tmp_path)
    many = measure_drift(table(5000, 4), table(5000, 5), columns[:1], tmp_path)
    assert few.columns[0].allowed > many.columns[0].allowed
    assert not few.columns[0].drifted
    assert not many.columns[0].drifted
