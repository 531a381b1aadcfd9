"""The rows that a tabular release scored through the gateway, for monitoring tables without time (row 44)."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
from sqlalchemy import insert

from services.gateway.call import Call
from services.gateway.log_export import export_scored_rows
from services.gateway.request_log import RequestLog
from services.store.database import DONE, REFUSED, Store, feedback, usage_records
from tasks.release.results import Release
from tests.gateway.in_process import call_of, settings_of

NOW = datetime.now(UTC)
SHOP = Release(
    case="shop",
    digest="d" * 64,
    as_of=NOW,
    folder=Path("shop"),
    bento="shop:1",
    version="1",
    run_id="r",
    kind="tabular",
    columns=(),
)


def scored_call(*ids: str | None, state: str = DONE, body: bytes = b"") -> Call:
    rows = [{"example_id": id_, "age": 40 + number} for number, id_ in enumerate(ids)]
    scores = [{"example_id": id_, "prediction": 1, "score": 0.75} for id_ in ids]
    call = call_of()
    call.request_body = body or json.dumps({"rows": rows}).encode()
    call.response_body = json.dumps({"release": "d" * 64, "predictions": scores}).encode()
    call.finish(state, 200)
    return call


def test_rows_scores_and_labels_as_of_a_moment(tmp_path: Path):
    """One row a row of each request, with the latest label; refused, cut, foreign and later calls are left out."""
    settings = settings_of(tmp_path / "state")
    calls = [scored_call("a", "b"), scored_call(None), scored_call("c", state=REFUSED)]
    calls += [scored_call("e", body=b'{"rows": [{"age'), scored_call("f")]
    calls[-1].share = replace(calls[-1].share, role="shadow")
    log = RequestLog(settings.state / "gateway" / "requests", "worker", bytes.decode, lambda: None)
    for call in calls:
        log.put(call)
    log.close()
    labels = [(calls[0], {"label": 0, "example_id": "b"}), (calls[0], {"label": 1, "example_id": "b"})]
    labels += [(calls[1], {"label": 1}), (calls[1], {"thumbs": "up"})]
    with closing(Store(settings)) as store, store.writing() as connection:
        for call in calls[:2]:
            record = {column.name: getattr(call, column.name, 0) for column in usage_records.c}
            texts = {"case": "shop", "digest": "d" * 64, "team": "", "key": "", "worker": "", "role": "champion"}
            other = {"budgets": [], "energy_wh": None, "guard": None}
            connection.execute(insert(usage_records).values(**record | texts | other))
        for call, payload in labels:
            about = {"request_id": call.id, "at": time.time(), "team": "", "key": "", "payload": payload}
            connection.execute(insert(feedback).values(**about))

    later = datetime.now(UTC) + timedelta(seconds=1)
    exported = export_scored_rows(SHOP, NOW - timedelta(hours=1), later, tmp_path / "rows.parquet", settings)
    rows = pq.read_table(exported.path).to_pylist()
    shown = [(row["request_id"], row["position"], json.loads(row["features"])["age"], row["label"]) for row in rows]
    assert shown == [
        (calls[0].id, 0, 40, None),
        (calls[0].id, 1, 41, "1"),
        (calls[1].id, 0, 40, "1"),
    ]
    assert exported.unreadable == 1
    before = export_scored_rows(SHOP, NOW - timedelta(hours=1), NOW - timedelta(minutes=1), exported.path, settings)
    assert pq.read_table(before.path).num_rows == before.unreadable == 0
