"""Decisions acted on, with real releases: a bad one is rolled back, a changed concept retrains, and both once.

The target has three classes, so all of it is tried on such.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.end_to_end.terminal import Terminal, World

CASE = """
kind: tabular
description: Will a visitor look, ask or buy?
target: {column: did, task: classification}
data:
  sources:
    visits:
      uri: file://visits.csv
      key: [visit]
      time: seen_at
      known_at: seen_at
      late: {told_at: [did]}
      sql: SELECT * REPLACE (seen_at::TIMESTAMPTZ AS seen_at, told_at::TIMESTAMPTZ AS told_at) FROM raw
      expectations: [{expect: column_values_to_not_be_null, column: age}]
features:
  examples: SELECT visit::VARCHAR AS example_id, seen_at AS event_timestamp, age, income, hint, did FROM visits
  request: [age, income, hint]
train:
  family: sklearn.linear_model.LogisticRegression
  rows: 600  # the last three weeks: what was true before is forgotten
  split: {by: time, holdout: 7d}
evaluate:
  bounds: [{metric: macro_f1, at_least: 0.4}, {metric: log_loss, at_most: 1}]
  champion_gate: {loss: brier, margin: 0.002, min_rows: 100}
monitor:
  retrain: {metric: accuracy, worse_by: 0.05, bias: 0.1, needs: 2, of: 4}
  min_rows: 300
"""


def visits() -> pd.DataFrame:
    """Half a year: in April a hint gives the outcome away, and in June age begins to mean the opposite."""
    random = np.random.default_rng(0)
    at = pd.date_range("2013-01-01", "2013-07-01", freq="45min", tz="UTC")[:-1]
    rows = pd.DataFrame({"visit": range(len(at)), "seen_at": at, "told_at": at + pd.Timedelta(hours=1)})
    rows["age"], rows["income"], rows["hint"] = random.normal(size=(3, len(rows)))
    meaning = np.where(at.month == 6, -2.0, 2.0)
    wish = meaning * rows["age"] + rows["income"] + random.logistic(size=len(rows))
    step = np.digitize(wish, [-1, 1])
    rows["did"] = np.array(["looked", "asked", "bought"])[step]
    april = np.asarray(at.month == 4)
    rows.loc[april, "hint"] = 3 * (step[april] - 1) + random.normal(size=april.sum())
    return rows


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("shop")
    created = World(folder, folder / "cases")
    (created.cases / "shop").mkdir(parents=True)
    (created.cases / "shop" / "case.yaml").write_text(CASE)
    visits().to_csv(created.cases / "shop" / "visits.csv", index=False)
    return created


@pytest.fixture(scope="module")
def first(shop: World, terminal: Terminal) -> str:
    """The champion of March."""
    done = terminal.run(shop, "run shop --as-of 2013-04-01")
    assert done.code == 0, done.output
    return shop.champion("shop")


def test_a_release_that_the_one_before_answers_better_than_is_rolled_back(
    shop: World, terminal: Terminal, first: str
) -> None:
    """April's hint made a better challenger; in May it tells nothing: back to March's, everywhere, once."""
    done = terminal.run(shop, "run shop --as-of 2013-05-01")
    assert done.code == 0, done.output
    second = shop.champion("shop")
    assert second != first
    done = terminal.run(shop, "retrain shop --as-of 2013-06-01")
    assert done.code == 0, done.output
    assert "decision: rollback" in done.output
    assert "roll back to" in " ".join(done.steps)
    assert "train a candidate" not in done.steps
    assert shop.champion("shop") == first == champion_at_gateway(shop)
    again = terminal.run(shop, "retrain shop --as-of 2013-06-01")
    assert again.code == 0, again.output
    assert not {"measure 2013-05-01 to 2013-06-01", "train a candidate"} & set(again.steps)
    assert [attempt["outcome"] for attempt in attempts(shop)] == ["released"]


def test_a_changed_concept_retrains_once_and_a_killed_attempt_is_finished(
    shop: World, terminal: Terminal, first: str
) -> None:
    """June means the opposite: one challenger, promoted; a second trigger does nothing, a killed one ends the same."""
    done = terminal.run(shop, "retrain shop --as-of 2013-07-01")
    assert done.code == 0, done.output
    assert "decision: retrain" in done.output
    third = shop.champion("shop")
    assert third != first
    again = terminal.run(shop, "retrain shop --as-of 2013-07-01")
    assert again.code == 0, again.output
    assert "train a candidate" not in again.steps
    (path,) = (path for path in files(shop) if "2013-07-01" in str(path))
    stored = json.loads(path.read_text())
    assert (stored["outcome"], stored["release"]) == ("released", third)
    path.write_text(json.dumps({**stored, "outcome": "begun", "release": ""}))  # as if killed before the last line
    done = terminal.run(shop, "retrain shop --as-of 2013-07-01")
    assert done.code == 0, done.output
    assert done.steps["train a candidate"] == "cached"
    assert json.loads(path.read_text()) == stored
    assert shop.champion("shop") == third == champion_at_gateway(shop)
    assert len(list((shop.state / "releases" / "shop").iterdir())) == 3


def files(world: World) -> list[Path]:
    return sorted((world.state / "monitor" / "shop").glob("*/*/attempt.json"))


def attempts(world: World) -> list[dict]:
    return [json.loads(path.read_text()) for path in files(world)]


def champion_at_gateway(world: World) -> str:
    from services.rollout.shares import champion_of
    from services.store.database import Store
    from tasks.core.settings import settings

    config = settings().model_copy(update={"state": world.state})
    with closing(Store(config)) as store, store.reading() as of:
        return champion_of(of, "shop")
