"""A regression case of seconds, by configuration alone: scikit-learn's diabetes data as CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

CASE = """
kind: tabular
description: How far will diabetes have gone in a year?
as_of: 2004-01-01
target: {column: progression, task: regression}
data:
  sources:
    patients:
      uri: file://patients.csv
      key: [patient]
      tolerance: 0.05
      expectations:
        - {expect: column_type_to_be, column: bmi, type_: DOUBLE}
        - {expect: column_values_to_be_between, column: progression, min_value: 1, max_value: 500}
        - {expect: column_values_to_not_be_null, column: bmi}
features:
  examples: >-
    SELECT patient::VARCHAR AS example_id, TIMESTAMPTZ '2003-01-01 00:00:00+00' AS event_timestamp,
           * EXCLUDE (patient), CASE WHEN sex > 0 THEN 'one' ELSE 'other' END AS group_of FROM patients
  request: [age, sex, bmi, bp, s1, s2, s3, s4, s5, s6]
train:
  family: sklearn.linear_model.Ridge
  parameters: {alpha: 0.1}
  split: {by: hash, share: 0.3}
  threads: 1
evaluate:
  slices: [group_of]
  bounds:
    - {metric: mae, at_most: 60}
    - {metric: rmse, at_most: 75}
    - {metric: r2, at_least: 0.3}
  champion_gate: {loss: squared_error, margin: 100, min_rows: 50}
  ms_per_row: 50
monitor:
  retrain: {metric: rmse, worse_by: 10}
"""

DATED_EXAMPLES = (
    "SELECT patient::VARCHAR AS example_id, seen AS event_timestamp, * EXCLUDE (patient, seen), "
    "CASE WHEN sex > 0 THEN 'one' ELSE 'other' END AS group_of FROM patients"
)

MOVING = """
kind: tabular
description: What will a meter read? The world changes on 1 February 2020, and the outcome is known a day later.
as_of: 2020-02-01
target: {column: reading, task: regression}
data:
  sources:
    meters:
      uri: file://meters.csv
      key: [meter]
      time: asked_at
      known_at: asked_at
      late: {published_at: [reading]}
features:
  examples: >-
    SELECT meter::VARCHAR AS example_id, asked_at AS event_timestamp, one, two, reading FROM meters
  request: [one, two]
train:
  family: sklearn.linear_model.Ridge
  parameters: {alpha: 0.1}
  split: {by: time, holdout: 7d}
  threads: 1
evaluate:
  bounds:
    - {metric: rmse, at_most: 20}
  champion_gate: {loss: squared_error, margin: 1, min_rows: 50}
  ms_per_row: 50
monitor:
  window: 28d
  retrain: {metric: rmse, worse_by: 3}
  min_rows: 200
"""
CHANGED = "2020-03-01T00:00:00Z"  # a month after that world has


def make_moving_case(cases: Path, name: str = "meters") -> Path:
    """Write a case of 60 rows a day in January and February 2020, with another relation from February on."""
    import numpy as np
    import pandas as pd

    folder = cases / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "case.yaml").write_text(MOVING)
    chance = np.random.default_rng(0)
    at = pd.date_range("2020-01-01", "2020-03-01", freq="24min", tz="UTC", inclusive="left")
    one, two = chance.normal(size=(2, len(at)))
    later = (at >= pd.Timestamp("2020-02-01", tz="UTC")).astype(float)
    reading = 50 + (5 + 10 * later) * one - 3 * two + 8 * later + chance.normal(size=len(at))
    columns = {"meter": range(1, len(at) + 1), "asked_at": at, "published_at": at + pd.Timedelta("1D")}
    pd.DataFrame({**columns, "one": one, "two": two, "reading": reading}).to_csv(folder / "meters.csv", index=False)
    return folder


def make_case(cases: Path, name: str = "diabetes") -> Path:
    """Write the case and its source into a folder of cases; give the case's folder."""
    folder = cases / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "case.yaml").write_text(CASE)
    write_source(folder)
    return folder


def write_source(folder: Path, change: Any = None) -> None:
    """Write patients.csv, after a change of the frame if one is given."""
    from sklearn.datasets import load_diabetes

    frame = load_diabetes(as_frame=True).frame.rename(columns={"target": "progression"})
    frame.insert(0, "patient", range(1, len(frame) + 1))
    (frame if change is None else change(frame)).to_csv(folder / "patients.csv", index=False)


def change_case(folder: Path, **changes: Any) -> None:
    """Set values of case.yaml, each named by its path with __ for a dot."""
    values = yaml.safe_load((folder / "case.yaml").read_text())
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = values
        for parent in parents:
            place = place[parent]
        place[last] = value
    (folder / "case.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def make_dated_case(cases: Path) -> None:
    """The small case with one patient a day, so that some come after the release."""

    def dated(frame):
        import pandas as pd

        return frame.assign(seen=pd.Timestamp("2003-01-01", tz="UTC") + pd.to_timedelta(frame["patient"], "D"))

    folder = make_case(cases)
    write_source(folder, dated)
    change_case(
        folder,
        data__sources__patients__time="seen",
        data__sources__patients__known_at="seen",
        features__examples=DATED_EXAMPLES,
        monitor__min_rows=30,
    )
