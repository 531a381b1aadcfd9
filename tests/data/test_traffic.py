"""What a language case was asked: replayed from wordings and the facts of each day, or read from a source."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from tasks.core.errors import CaseError, DataError
from tasks.data.config import Answer, Pairs, Source, Templates, Traffic, TrafficSpec
from tasks.data.language.traffic import gather_messages
from tasks.data.results import Snapshot, TimeWindow, WindowMessages

ANSWER = Answer(json_schema={"type": "object"}, abstain={"call": "none"}, stated=("book",))
FACTS = "SELECT book, day FROM loans"
TEMPLATES = Templates.model_validate(
    {
        "intents": {
            "renew": {
                "facts": FACTS,
                "answer": {"call": "renew", "book": "{book}"},
                "train": ["Renew {book}."],
                "held_out": ["Extend {book}.", "More time with {book}."],
            },
            "none": {
                "facts": FACTS,
                "answer": {"call": "none"},
                "train": ["Hello."],
                "held_out": ["Where can I park?", "What is {book} about?"],
            },
        }
    }
)
SHIFTED = Templates.model_validate(
    {"intents": {"lend": {"facts": FACTS, "answer": {"call": "lend"}, "held_out": ["Puis-je garder {book} ?"]}}}
)
SOURCES = {
    "loans": Source(uri="file://loans.csv", key=("book",)),
    "requests": Source(uri="file://requests.csv", key=("request",), time="came"),
}


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """Two loans a day in May, and three requests, of which one has its right answer."""
    folder = tmp_path / "snapshot"
    days = pd.date_range("2024-05-01", "2024-05-31")
    loans = [{"book": f"{letter}{day.day}", "day": day.date()} for day in days for letter in "AB"]
    moments = pd.to_datetime(["2024-05-03 10:00", "2024-05-04 10:00", "2024-06-01 10:00"], utc=True)
    prompts = ["Extend A3, please.", "Extend B4.", "Too late."]
    requests = pd.DataFrame({"request": ["a", "b", "c"], "came": moments, "prompt": prompts})
    requests["completion"] = [None, '{"book": "B4", "call": "renew"}', None]
    for name, frame in (("loans", pd.DataFrame(loans)), ("requests", requests)):
        (folder / name).mkdir(parents=True)
        frame.to_parquet(folder / name / "all.parquet")
    return folder


def window(snapshot: Path, traffic: Traffic, first: int = 3, last: int = 10) -> WindowMessages:
    return gather(snapshot, traffic, Pairs(templates=TEMPLATES), first, last)


def gather(folder: Path, traffic: Traffic, pairs: Pairs, first: int, last: int) -> WindowMessages:
    start, end = (datetime(2024, 5, day, tzinfo=UTC) for day in (first, last))
    snapshot = Snapshot(case="library", as_of=end, digest="", path=folder, rows={}, quarantined={}, docs={})
    spec = TrafficSpec(traffic=traffic, pairs=pairs, answer=ANSWER, sources=SOURCES)
    return gather_messages(spec, snapshot, TimeWindow(start=start, end=end), folder.parent / "state")


def read(messages: WindowMessages) -> list[dict]:
    return pd.read_parquet(messages.path).to_dict("records")


def test_each_day_has_its_messages_about_its_own_facts(snapshot: Path) -> None:
    """A message names a fact of its day in a held-out wording, with its right answer, inside the window."""
    rows = read(window(snapshot, Traffic(a_day=6)))
    assert len(rows) == 7 * 6
    assert rows == sorted(rows, key=lambda row: row["event_timestamp"])
    for row in rows:
        text = json.loads(row["messages"])[0]["content"]
        assert text.startswith(("Extend", "More time", "Where", "What"))
        answer = json.loads(row["answer"])
        if row["intent"] == "renew":
            assert answer["book"] in text
            assert int(answer["book"][1:]) == row["event_timestamp"].day


def test_a_day_is_the_same_in_every_window(snapshot: Path) -> None:
    """What was answered once need not be asked again when the window moves, and equal windows are the same file."""
    early, late = (read(window(snapshot, Traffic(), *days)) for days in ((3, 8), (6, 12)))
    day = [[row for row in rows if row["event_timestamp"].day == 7] for rows in (early, late)]
    assert day[0] == day[1]
    assert len(day[0]) == 12
    assert window(snapshot, Traffic()) == window(snapshot, Traffic())


def test_a_shift_takes_its_share(snapshot: Path) -> None:
    """Some of the messages come from the other wordings, under ids of their own."""
    shifted = read(window(snapshot, Traffic(a_day=40, shift=SHIFTED, share=0.5)))
    lent = [row for row in shifted if row["intent"] == "lend"]
    assert 0.4 < len(lent) / len(shifted) < 0.6
    ordinary = {row["example_id"] for row in read(window(snapshot, Traffic(a_day=40)))}
    assert not ordinary & {row["example_id"] for row in lent}


def test_right_answers_may_stay_unknown(snapshot: Path) -> None:
    """A case can replay a world in which nobody says what was right."""
    assert {row["answer"] for row in read(window(snapshot, Traffic(outcomes=False)))} == {None}


def test_requests_are_read_from_a_source(snapshot: Path) -> None:
    """Rows of the window, by the source's time; the right answer where it is known, keys as they always are."""
    rows = read(window(snapshot, Traffic(source="requests")))
    assert [row["example_id"] for row in rows] == ["a", "b"]
    assert [row["answer"] for row in rows] == [None, '{"book":"B4","call":"renew"}']
    assert json.loads(rows[0]["messages"]) == [{"role": "user", "content": "Extend A3, please."}]


def test_a_source_without_time_or_messages_is_refused(snapshot: Path) -> None:
    """The error says which source, and which would do."""
    with pytest.raises(CaseError, match="no source with a time") as caught:
        window(snapshot, Traffic(source="loans"))
    assert caught.value.allowed == "requests"
    path = snapshot / "requests" / "all.parquet"
    pd.read_parquet(path).rename(columns={"prompt": "text"}).to_parquet(path)
    with pytest.raises(DataError, match="has no messages"):
        window(snapshot, Traffic(source="requests"))


def test_a_case_needs_a_source_of_requests(snapshot: Path) -> None:
    """Without wordings and without a source there is nothing to answer."""
    with pytest.raises(CaseError, match="has no source of requests"):
        gather(snapshot, Traffic(), Pairs(sources=("requests",)), 3, 4)
