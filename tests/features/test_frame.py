"""The frame holds what was known at each example's moment, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from tasks.core.errors import CaseError, DataError
from tasks.core.files import file_digest
from tasks.data.results import TimeWindow
from tasks.features.config import FrameSpec, View
from tasks.features.training_frame import build_frame
from tests.features.small import CARRIER_DAY, EXAMPLES, snapshot

NAMES = ["carrier", "hour", "carrier_late", "carrier_words", "temp", "wind_gust"]


def build(features, at, state, slices=("origin",), **options):
    return build_frame(FrameSpec(features=features, target="late", slices=slices), at, state, **options)


def test_a_frame_says_what_it_holds(january, features, tmp_path):
    """One row an example, sorted by time and id, with the columns that the summary names; unknown targets on demand."""
    frame = build(features, snapshot(january), tmp_path)
    table = pd.read_parquet(frame.path)
    assert [column.name for column in frame.columns] == NAMES
    assert [column.kind for column in frame.columns] == ["text", "number", "number", "text", "number", "number"]
    assert frame.columns[2].origin == "carrier_day"
    assert frame.columns[2].entities == ("carrier",)
    assert set(table.columns) == {"example_id", "event_timestamp", "origin", "late", *NAMES}
    assert len(table) == frame.rows > 14_000
    assert table["example_id"].is_unique
    assert table["late"].notna().all()
    assert table.equals(table.sort_values(["event_timestamp", "example_id"], ignore_index=True))
    assert (frame.start, frame.end) == (table["event_timestamp"].iloc[0], table["event_timestamp"].iloc[-1])
    assert table[["temp", "carrier_late"]].notna().mean().min() > 0.85
    every = build(features, snapshot(january), tmp_path, known_only=False)
    assert every.rows > frame.rows
    day = datetime(2013, 1, 10, tzinfo=UTC)
    window = TimeWindow(start=day, end=day + timedelta(days=1))
    windowed = pd.read_parquet(build(features, snapshot(january), tmp_path, window=window).path)
    inside = table[(table["event_timestamp"] >= day) & (table["event_timestamp"] < day + timedelta(days=1))]
    pd.testing.assert_frame_equal(windowed, inside.reset_index(drop=True))


def test_equal_inputs_give_equal_bytes_and_a_second_call_reads_only_the_summary(january, features, tmp_path):
    """The same snapshot and definitions make the same file, in any folder; an existing file is not rewritten."""
    first = build(features, snapshot(january), tmp_path / "a")
    other = build(features, snapshot(january), tmp_path / "b")
    assert file_digest(first.path) == file_digest(other.path)
    written = first.path.stat().st_mtime_ns
    again = build(features, snapshot(january / "gone"), tmp_path / "a")
    assert again == first
    assert again.path.stat().st_mtime_ns == written


def test_a_run_killed_halfway_is_finished_by_the_next(january, features, tmp_path):
    """Left-over temporary files, missing tables and a missing registry change nothing in the end."""
    whole = build(features, snapshot(january), tmp_path / "a")
    state = tmp_path / "b"
    build(features, snapshot(january), state)
    for file in [*state.rglob("weather.parquet"), *state.rglob("registry.db"), *(state / "frames").iterdir()]:
        file.rename(file.with_name(f".{file.name}.1.tmp"))
    assert file_digest(build(features, snapshot(january), state).path) == file_digest(whole.path)


def test_no_future_row_reaches_a_feature(january, features, changed, tmp_path):
    """Rows planted in the future, and back-fills that became known later, leave earlier examples as they are."""
    moment = "TIMESTAMPTZ '2013-01-12 12:00:00'"
    plain = pd.read_parquet(build(features, snapshot(january), tmp_path / "plain", known_only=False).path)
    # From noon on 12 January all weather is absurd, and so is what is published later about any day.
    poison = "SELECT * REPLACE (CASE WHEN {} >= {} THEN {} ELSE {} END AS {}) FROM rows".format
    changed("weather", poison("time_hour", moment, 999, "temp", "temp"))
    poisoned = changed("flights", poison("published_at", moment, 1, "late", "late"))
    poisoned = pd.read_parquet(build(features, poisoned, tmp_path / "poisoned", known_only=False).path)
    seen = ["example_id", *NAMES]
    before = plain["event_timestamp"] < pd.Timestamp("2013-01-12 12:00", tz="UTC")
    pd.testing.assert_frame_equal(plain.loc[before, seen], poisoned.loc[before, seen])
    assert (poisoned.loc[~before, "temp"] == 999).mean() > 0.9  # the poison works where it may
    # A back-fill: for every day known on 12 January a better value, created on the 18th.
    backfill = f"""{CARRIER_DAY} UNION ALL
        SELECT carrier, max(scheduled_at), TIMESTAMPTZ '2013-01-18', 777, 'filled in'
        FROM flights WHERE published_at < {moment} GROUP BY carrier, published_at"""
    views = features.views | {"carrier_day": View(entities=("carrier",), sql=backfill, ttl=timedelta(days=3))}
    filled = build(features.model_copy(update={"views": views}), snapshot(january), tmp_path, known_only=False)
    pd.testing.assert_frame_equal(pd.read_parquet(filled.path)[seen], plain[seen])


def test_a_case_without_views_needs_no_feast(january, features, tmp_path):
    """Its features are the request's columns."""
    bare = features.model_copy(update={"views": {}})
    frame = build(bare, snapshot(january), tmp_path)
    assert [column.name for column in frame.columns] == ["carrier", "hour"]
    assert not list(tmp_path.rglob("registry.db"))


def view(**changes):
    """Change the weather view; {} in its SQL is what it was."""

    def change(features):
        weather = features.views["weather"]
        changed = weather.model_copy(update={**changes, "sql": changes["sql"].replace("{}", weather.sql)})
        return features.model_copy(update={"views": features.views | {"weather": changed}})

    return change


def examples(old, new):
    return lambda features: features.model_copy(update={"examples": EXAMPLES.replace(old, new)})


def request(*names):
    return lambda features: features.model_copy(update={"request": names})


WRONG = [
    (examples(EXAMPLES, "SELECT nothing FROM flights"), CaseError, "nothing"),
    (examples(EXAMPLES, "SELECT 1 AS example_id"), CaseError, "event_timestamp"),
    (examples("late", "late + 1"), CaseError, "target late"),
    (examples("origin,", ""), CaseError, "lacks origin"),
    (examples("FROM flights", "FROM flights WHERE false"), DataError, "no examples"),
    (examples("flight_id", "carrier"), DataError, "not unique"),
    (examples("flight_id", "nullif(hour, 7)"), DataError, "have no example_id"),
    (request("carrier", "speed"), CaseError, "lacks speed"),
    (request("late"), CaseError, "is a feature, too"),
    (view(sql="SELECT temp FROM weather"), CaseError, "lacks origin, event_timestamp"),
    (view(sql="SELEC temp FROM weather"), CaseError, "features.views.weather.sql"),
    (view(sql="SELECT * FROM '/etc/hosts'"), CaseError, "/etc/hosts"),
    (view(sql="SELECT * EXCLUDE (temp, wind_gust) FROM ({})"), CaseError, "no feature"),
    (view(sql="SELECT * REPLACE (1 AS event_timestamp) FROM ({})"), CaseError, "not a time"),
    (view(sql="SELECT *, event_timestamp AS t FROM ({})"), CaseError, "t is time"),
    (view(sql="SELECT *, temp AS hour FROM ({})"), CaseError, "share a name"),
    (view(sql="SELECT * REPLACE (1 AS origin) FROM ({})"), CaseError, "join key origin"),
    (view(sql="SELECT *, temp AS Outcome FROM ({})"), CaseError, "name that is taken"),
    (view(sql="SELECT *, 1 AS rowid FROM ({})"), CaseError, "reserved names of the offline store"),
    (view(sql="{} UNION ALL {}"), DataError, "not unique"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG)
def test_a_wrong_definition_is_refused_without_a_frame(january, features, tmp_path, change, error, message):
    """SQL that fails, missing or clashing columns, ids that repeat: what, where, found, allowed and what to do."""
    with pytest.raises(error, match=message) as caught:
        build(change(features), snapshot(january), tmp_path)
    assert caught.value.where
    assert caught.value.todo
    assert not list(tmp_path.glob("frames/*"))


def test_missing_slices_and_empty_windows_are_refused(january, features, tmp_path):
    """A slice that no table gives is the case's fault; a window without examples the call's."""
    with pytest.raises(CaseError, match="slices"):
        build(features, snapshot(january), tmp_path, slices=("colour",))
    later = TimeWindow(start=datetime(2014, 1, 1, tzinfo=UTC), end=datetime(2014, 1, 2, tzinfo=UTC))
    with pytest.raises(DataError, match="No example is left"):
        build(features, snapshot(january), tmp_path, window=later)
