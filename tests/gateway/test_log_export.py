"""The request log as a data source: requests, responses and feedback of a case, as of a moment."""

from __future__ import annotations

import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from services.gateway.log_export import export_log
from services.gateway.traces import write_traces
from tasks.core.errors import CaseError, InputError
from tasks.core.files import file_digest
from tasks.core.mlflow import Tracking, mlflow_client
from tasks.core.settings import Settings
from tasks.data.config import Answer, Pairs, Source, Traffic, TrafficSpec
from tasks.data.language.feedback import is_log, read_log
from tasks.data.language.pairs import PairFormat
from tasks.data.language.traffic import gather_messages
from tasks.data.results import Snapshot, TimeWindow
from tasks.data.sources import ingest
from tasks.predict.language import answer
from tasks.release.results import Release
from tests.gateway.stack import gateway_client
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("gateway")

SOURCE = Source(uri="log://talker", key=("request_id",), time="requested_at")
SCHEMA = Answer(json_schema={"type": "object", "properties": {"said": {"type": "string"}}, "required": ["said"]})
GOOD = '{"said":"Good morning."}'


class Log:
    """This test's own calls to the talker, in order."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder, self.ids = settings, folder, []

    def rows(self, as_of: datetime | None = None) -> list[dict]:
        path = export_log("talker", as_of or datetime.now(UTC), self.folder / "log.parquet", self.settings)
        return [row for row in pq.read_table(path).to_pylist() if row["request_id"] in self.ids]


@pytest.fixture(scope="module")
def log(settings: Settings, talker: Release, tmp_path_factory) -> Log:
    """A liked answer, a corrected one, one of which a label tells what was right, a cached one without feedback; then
    a disliked one, which came later, and a refused one."""
    log = Log(settings, tmp_path_factory.mktemp("collected"))
    feedback = [{"thumbs": "down"}, {"thumbs": "up"}], [{"corrected": GOOD}], [{"label": GOOD}], [], [{"score": 0.2}]
    with gateway_client(settings) as http:
        for number, words in enumerate(feedback):
            text = f"Say\u2028hello,\nann@example.org, {min(number, 2)} times."
            body: dict[str, Any] = {
                "model": "talker",
                "messages": [{"role": "user", "content": text}],
                "stream": number == 1,
            }
            body |= {"max_tokens": 8, "temperature": 0, "response_format": {"type": "text"}}
            if number == 4:
                time.sleep(0.1)
                body["messages"][0]["content"] = "Later."
            answered = http.post("/v1/chat/completions", json=body)
            assert answered.status_code == 200
            assert answered.headers.get("x-driftline-cache") == ("hit" if number == 3 else None)
            log.ids.append(answered.headers["x-request-id"])
            for word in words:
                assert http.post(f"/v1/feedback/{log.ids[-1]}", json=word).status_code == 201
        refused = http.post("/v1/chat/completions", json={"model": "talker", "messages": []})
        log.ids.append(refused.headers["x-request-id"])
    assert wait_for(lambda: len(log.rows()) == 5)
    return log


def test_a_row_has_request_response_and_feedback(log: Log, talker: Release) -> None:
    """One row a chat, with the response as redacted text and the latest feedback; refused calls are left out."""
    rows = log.rows()
    assert [row["request_id"] for row in rows] == log.ids[:5]
    feedback_columns = [(row["feedback"], row["correction"], row["completion"]) for row in rows]
    assert feedback_columns == [
        ("up", None, None),
        ("down", GOOD, None),
        (None, None, GOOD),
        (None,) * 3,
        ("0.2", None, None),
    ]
    assert [row["state"] for row in rows] == ["done"] * 3 + ["cached", "done"]
    for number, row in enumerate(rows[:4]):
        (message,) = json.loads(row["messages"])
        assert message == {"role": "user", "content": f"Say\u2028hello,\n[EMAIL], {min(number, 2)} times."}
        assert row["release"] == talker.digest
        assert (row["tokens_out"], row["answer"][:1] == "{") == (8, False)
    assert rows[2]["answer"] == rows[3]["answer"]
    assert rows[0]["price"] > rows[3]["price"] == 0


def test_nothing_after_the_as_of_is_exported(log: Log) -> None:
    """Neither a call nor a word; and the same log gives the same file."""
    rows = log.rows()
    before = rows[4]["requested_at"] - timedelta(seconds=0.01)
    known = log.rows(before)
    assert [row["request_id"] for row in known] == log.ids[:4]
    path, first = log.folder / "log.parquet", rows[0]["requested_at"] + timedelta(seconds=rows[0]["seconds"])
    digest = file_digest(path)
    assert [row["feedback"] for row in log.rows(first + timedelta(milliseconds=1))] == [None]
    log.rows(before)
    assert file_digest(path) == digest


def test_pairs_learn_from_the_log(log: Log) -> None:
    """What was liked or corrected teaches; the rest is counted, as of any log with feedback."""
    rows, left = log.rows(), Counter()
    assert is_log(rows)
    pairs = read_log("log", rows, PairFormat(SCHEMA), liked=0.5, skipped=left)
    assert [(pair.text[-8:], pair.answer, pair.rejected) for pair in pairs] == [
        ("0 times.", rows[0]["answer"], None),
        ("1 times.", GOOD, rows[1]["answer"]),
    ]
    assert left == {"without feedback": 2, "disliked without a correction": 1}


def test_the_log_is_a_source_of_traffic_and_answers(log: Log, talker: Release) -> None:
    """Ingested like any file, with correct answers where known; logged answers are not computed again."""
    log.rows()
    landed = ingest("log", SOURCE, log.folder, raw=log.folder / "raw", log=log.folder / "log.parquet")
    snapshot = log.folder / "snapshot"
    (snapshot / "log").mkdir(parents=True)
    for batch in landed.batches:
        (snapshot / "log" / f"{batch.name}.parquet").symlink_to(batch.path)
    now = datetime.now(UTC)
    spec = TrafficSpec(
        traffic=Traffic(source="log"), pairs=Pairs(sources=("log",)), answer=SCHEMA, sources={"log": SOURCE}
    )
    stored = Snapshot(case="talker", as_of=now, digest="", path=snapshot, rows={}, quarantined={}, docs={})
    messages = gather_messages(spec, stored, TimeWindow(start=now - timedelta(days=1), end=now), log.folder)
    rows = {row["example_id"]: row for row in pq.read_table(messages.path).to_pylist()}
    right = [rows[id_]["answer"] for id_ in log.ids[:5]]
    assert right[1:] == [GOOD, GOOD, None, None]
    logged_answers = {row["request_id"]: row["answer"] for row in log.rows()}
    assert right[0] == logged_answers[log.ids[0]], "liked"
    # a folder without a model: a prediction would fail
    empty = talker.model_copy(update={"folder": log.folder})
    predictions = answer(empty, messages, now, log.folder / "out", 1)
    table = [row for path in predictions.paths for row in pq.ParquetFile(path).read().to_pylist()]
    assert {row["example_id"]: row["prediction"] for row in table if row["example_id"] in log.ids} == logged_answers
    assert {row["release_digest"] for row in table} == {talker.digest}


def test_a_log_that_is_no_source_is_refused(settings: Settings, table: Release, tmp_path: Path) -> None:
    """A log without texts, and that of a table's case."""
    silent = settings.model_copy(update={"gateway_log": "none"})
    with pytest.raises(InputError, match="stores no texts"):
        export_log("talker", datetime.now(UTC), tmp_path / "log", silent)
    with pytest.raises(CaseError, match="calls are not chats"):
        export_log("small", datetime.now(UTC), tmp_path / "log", settings)
    path = export_log("nobody", datetime.now(UTC), tmp_path / "log.parquet", settings)
    empty = ingest("log", SOURCE, tmp_path, raw=tmp_path / "raw", log=path)
    assert [batch.name for batch in empty.batches] == ["all"], "nobody has asked yet, which is no error"


def test_a_sample_becomes_traces(log: Log, talker: Release, tmp_path: Path) -> None:
    """With the call's own time, tokens, price and masked texts, found by MLflow's search; written once."""
    everything = {"tracking_url": Tracking.in_folder(tmp_path).uri, "gateway_traces": 1.0}
    settings = log.settings.model_copy(update=everything)
    now = datetime.now(UTC)
    assert write_traces("talker", now, settings.model_copy(update={"gateway_traces": 0.0})) == 0
    assert write_traces("talker", now, settings) >= 5
    assert write_traces("talker", now, settings) == 0
    client = mlflow_client(settings.tracking)
    place = client.get_experiment_by_name("talker").experiment_id
    traces = {each.info.client_request_id: each for each in client.search_traces(locations=[place])}
    assert set(traces) & set(log.ids) == set(log.ids[:5]), "a refused call is none"
    for row in log.rows():
        found = traces[row["request_id"]]
        assert found.info.request_time == int(row["requested_at"].timestamp() * 1000)
        assert found.info.token_usage["output_tokens"] == row["tokens_out"]
        assert found.info.cost["total_cost"] == pytest.approx(row["price"])
        (span,) = found.data.spans
        assert span.inputs["messages"] == json.loads(row["messages"])
        assert span.outputs == row["answer"]
        assert span.status.status_code == "OK"
    assert "ann@example" not in str(traces)
    some = settings.model_copy(
        update={"gateway_traces": 0.5, "tracking_url": Tracking.in_folder(tmp_path / "half").uri}
    )
    write_traces("talker", now, some)
    place = mlflow_client(some.tracking).get_experiment_by_name("talker").experiment_id
    half = {each.info.client_request_id for each in mlflow_client(some.tracking).search_traces(locations=[place])}
    lower = {id_ for id_ in log.ids[:5] if int(id_[-8:], 16) < 2**31}
    assert half & set(log.ids) == lower, "a share, by the random part of the id"
