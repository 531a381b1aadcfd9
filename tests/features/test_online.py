"""What a service reads online is what the frame holds for the same moment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from tasks.core.errors import CaseError, InputError, Unavailable
from tasks.features.config import FrameSpec
from tasks.features.definitions import SQLITE, make_repository
from tasks.features.online import OnlineFeatures, materialise
from tasks.features.schema import describe_tables
from tasks.features.training_frame import build_frame
from tests.features.small import AS_OF, EXAMPLES, snapshot

NAMES = ["carrier_late", "carrier_words", "temp", "wind_gust"]


def test_training_and_serving_see_the_same(january, features, tmp_path):
    """At the snapshot's moment, every key's features are equal, online and offline, found or not."""
    query = f"""
        SELECT * REPLACE (TIMESTAMPTZ '{AS_OF}' AS event_timestamp)
        FROM ({EXAMPLES}) WHERE event_timestamp > '2013-01-19'
        UNION ALL SELECT 'unknown', TIMESTAMPTZ '{AS_OF}', 'ZZ', 'ZZZ', '', 1, 0"""
    changed = features.model_copy(update={"examples": query})
    offline = FrameSpec(features=changed, target="late", slices=())
    frame = pd.read_parquet(build_frame(offline, snapshot(january), tmp_path, known_only=False).path)
    online = OnlineFeatures(materialise(features, snapshot(january), tmp_path))
    found = pd.DataFrame(online.lookup(frame[["carrier", "origin"]].to_dict("records"), AS_OF))
    pd.testing.assert_frame_equal(found[NAMES], frame[NAMES], check_exact=True)
    assert frame[NAMES].notna().any().all()
    assert frame[NAMES].isna().any().all()


def test_a_value_is_served_until_its_ttl_ends(january, features, tmp_path):
    """To the microsecond, as offline; and nothing is served of a moment that is still to come."""
    online = OnlineFeatures(materialise(features, snapshot(january), tmp_path))
    last = pd.read_parquet(january / "weather" / "2013-01.parquet").query("origin == 'JFK'")["time_hour"].max()
    end = last.to_pydatetime() + timedelta(hours=6)

    def temp(now):
        return online.lookup([{"carrier": "AA", "origin": "JFK"}], now)[0]["temp"]

    assert temp(end) is not None
    assert temp(end + timedelta(microseconds=1)) is None
    assert temp(last.to_pydatetime() - timedelta(microseconds=1)) is None


def test_a_key_that_is_missing_or_unknown_gives_none(january, features, tmp_path):
    """A row may lack a view's key: the other views' features are there all the same."""
    online = OnlineFeatures(materialise(features, snapshot(january), tmp_path))
    rows = [{"origin": "JFK"}, {"origin": None, "carrier": "AA"}, {"origin": "??", "carrier": "??"}]
    first, second, third = online.lookup(rows, AS_OF)
    assert first["carrier_late"] is None
    assert first["temp"] is not None
    assert second["carrier_late"] is not None
    assert second["temp"] is None
    assert set(third) == set(NAMES)
    assert set(third.values()) == {None}
    assert online.lookup([], AS_OF) == []


def test_materialising_twice_or_an_older_snapshot_changes_nothing(january, features, changed, tmp_path):
    """It is idempotent, and a replay of an earlier day does not put old values before new ones."""
    rows = [{"origin": origin, "carrier": carrier} for origin in ("JFK", "LGA") for carrier in ("AA", "UA")]
    online = OnlineFeatures(materialise(features, snapshot(january), tmp_path))
    before = online.lookup(rows, AS_OF)
    assert materialise(features, snapshot(january), tmp_path) == materialise(features, snapshot(january), tmp_path)
    older = changed("weather", "FROM rows WHERE time_hour < '2013-01-19'")
    older = older.model_copy(update={"as_of": datetime(2013, 1, 19, tzinfo=UTC)})
    folder = materialise(features, older, tmp_path)
    assert OnlineFeatures(folder).lookup(rows, AS_OF) == before
    with ThreadPoolExecutor(8) as pool:  # one reader, many threads
        assert all(answer == before for answer in pool.map(lambda _: online.lookup(rows, AS_OF), range(40)))


def test_errors_say_what_to_do(january, features, tmp_path):
    """No views, a wrong address, a Redis that does not answer; a password reaches no file."""
    with pytest.raises(CaseError, match="without views"):
        materialise(features.model_copy(update={"views": {}}), snapshot(january), tmp_path)
    with pytest.raises(InputError, match="address of the online store"):
        materialise(features, snapshot(january), tmp_path, "http://somewhere")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        materialise(features, snapshot(january), tmp_path, "redis://:hunter2@127.0.0.1:1")
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and b"hunter2" in file.read_bytes()]


@pytest.fixture
def store(january, features, tmp_path):
    tables = describe_tables(features, snapshot(january), tmp_path)
    return make_repository(tmp_path / "repository", "small", "small", tables, {"type": SQLITE, "path": "online.db"})


NOON = pd.Timestamp("2013-01-10 12:00", tz="UTC")


def stays(store, view, row, feature):
    """Write a row; what is read then."""
    store.write_to_online_store(view, pd.DataFrame([row]))
    keys = {key: row[key] for key in ("origin", "carrier") if key in row}
    return store.get_online_features([f"{view}:{feature}"], [keys]).to_dict()[feature][0]


def test_an_older_value_never_replaces_a_newer_one(store):
    """In whatever order they are written; apart by less than a second, too; an equal moment takes the last."""
    moment = pd.Timedelta(microseconds=1)
    for temp, event, expected in [
        (2.0, NOON, 2.0),
        (1.0, NOON - pd.Timedelta(hours=1), 2.0),
        (1.5, NOON - moment, 2.0),
        (3.0, NOON, 3.0),
        (4.0, NOON + moment, 4.0),
    ]:
        row = {"origin": "JFK", "temp": temp, "wind_gust": None, "event_timestamp": event}
        assert stays(store, "weather", row, "temp") == expected


def test_of_one_event_the_value_created_last_stays(store):
    """A back-fill replaces what it corrects, and not the other way round."""
    for late, hours, expected in [(0.2, 2, 0.2), (0.1, 1, 0.2), (0.3, 3, 0.3)]:
        times = {"event_timestamp": NOON, "created_timestamp": NOON + pd.Timedelta(hours=hours)}
        row = {"carrier": "AA", "carrier_late": late, "carrier_words": "", **times}
        assert stays(store, "carrier_day", row, "carrier_late") == expected


def test_a_lost_store_is_built_again(january, features, tmp_path):
    """Deleting the SQLite file loses nothing that the snapshot does not hold."""
    folder = materialise(features, snapshot(january), tmp_path)
    before = OnlineFeatures(folder).lookup([{"origin": "JFK"}], AS_OF)
    for file in folder.glob("online.db*"):
        file.unlink()
    again = OnlineFeatures(materialise(features, snapshot(january), tmp_path))
    assert again.lookup([{"origin": "JFK"}], AS_OF) == before
