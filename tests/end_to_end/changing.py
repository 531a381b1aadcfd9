"""A case of seconds whose world changes: half a year of visits, of which some end in a purchase."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

A_DAY = 40
CASE = """
kind: tabular
description: Will a visit end in a purchase?
target: {column: bought, task: classification, positive: "Yes"}
data:
  sources:
    visits:
      uri: file://visits.csv
      key: [visit]
      time: visited_at
      late: {known: [bought]}
      expectations:
        - {expect: column_values_to_not_be_null, column: pages}
features:
  examples: >-
    SELECT visit AS example_id, visited_at AS event_timestamp, pages, minutes, if(bought, 'Yes', 'No') AS bought
    FROM visits
  request: [pages, minutes]
train:
  family: sklearn.linear_model.LogisticRegression
  rows: 800  # the last twenty days: no mixture of both worlds
  split: {by: time, holdout: 7d}
evaluate:
  bounds:
    - {metric: auc, at_least: 0.6}
  champion_gate: {loss: brier, margin: 0.02, min_rows: 50}
monitor:
  retrain: {metric: auc, worse_by: 0.15, bias: 0.08}
  min_rows: 100
  sample: 500
"""


def make_case(cases: Path) -> None:
    """Write the case `visits`: in March more is bought all at once; the last week of April says nothing."""
    folder = cases / "visits"
    folder.mkdir(parents=True)
    (folder / "case.yaml").write_text(CASE)
    random = np.random.default_rng(0)
    at = pd.date_range("2024-01-01", "2024-07-01", freq=f"{24 * 60 // A_DAY}min", tz="UTC", inclusive="left")
    pages, minutes = random.normal(size=(2, len(at)))
    level = np.where(at < pd.Timestamp("2024-03-01", tz="UTC"), -1.0, 0.8)
    odds = 1.5 * pages + minutes + level
    odds[(at >= pd.Timestamp("2024-04-23", tz="UTC")) & (at < pd.Timestamp("2024-05-01", tz="UTC"))] = 0.8
    table = pd.DataFrame(
        {
            "visit": [f"v{i:05d}" for i in range(len(at))],
            "visited_at": at,
            "known": at + pd.Timedelta(hours=12),
            "pages": pages,
            "minutes": minutes,
            "bought": np.where(random.random(len(at)) < 1 / (1 + np.exp(-odds)), "Yes", "No"),  # DuckDB reads booleans
        }
    )
    table.to_csv(folder / "visits.csv", index=False)
