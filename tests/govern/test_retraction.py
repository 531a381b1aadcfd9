"""Promise: a retracted row is found wherever it is, removed, and never read again."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import insert

from cli.retract import find_key
from flows.case import load_case
from services.gateway.request_log import COLUMNS, NUMBERS, SECONDS, pack, reading_log
from services.gateway.retraction import find_calls, find_feedback, forget_calls, forget_feedback
from services.store.database import Store, feedback, predictions, usage_records
from tasks.core.duckdb import connect
from tasks.core.errors import DataError, InputError
from tasks.core.settings import ROOT, Settings
from tasks.data.results import ValidatedBatches, Validation
from tasks.data.retracted import drop_retracted, new_retraction, read_retracted, retracted_list, write_retracted
from tasks.data.snapshots import remove_snapshots, restore_snapshot, store_snapshot
from tasks.govern.retraction import Row, example_ids, find_row, remove_finding
from tests.cli.test_status import entry

AS_OF = datetime(2024, 1, 1, tzinfo=UTC)
ROW = Row(case="shop", columns=("client",), values=("7",))
EXAMPLES = frozenset({"7"})


def write(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def test_a_listed_row_is_dropped_and_no_other(tmp_path):
    """By a salted digest: the list does not name the person; a table without the key has none of it."""
    write_retracted(tmp_path, (new_retraction(("client",), ("7",)), new_retraction(("a", "b"), ("1", "x"))))
    assert '"7"' not in retracted_list(tmp_path).read_text()
    rows = read_retracted(tmp_path)
    assert rows[0].matches(("client",), ("7",))
    assert not rows[0].matches(("client",), ("8",))
    with connect() as db:
        db.execute("CREATE TABLE t AS SELECT unnest([7, 8, 77]) AS client, unnest([1, 2, 3]) AS n")
        db.execute("CREATE TABLE u AS SELECT * FROM (VALUES (1, 'x'), (1, 'y'), (2, 'x')) AS u(a, b)")
        for table in ("t", "u"):
            drop_retracted(db, table, rows)
        assert db.execute("SELECT client FROM t ORDER BY 1").fetchall() == [(8,), (77,)]
        assert db.execute("SELECT a, b FROM u ORDER BY 1, 2").fetchall() == [(1, "y"), (2, "x")]


def test_a_damaged_list_stops_a_run(tmp_path):
    """Or the row would come back unseen."""
    retracted_list(tmp_path).write_text("[")
    with pytest.raises(DataError, match="can't be read"):
        read_retracted(tmp_path)


def test_a_row_is_found_by_key_example_and_origin(tmp_path):
    """And what another client, another case or another snapshot has is left."""
    config, state = Settings(state=tmp_path / "state", data=tmp_path / "data"), tmp_path / "state"
    write(state / "features" / "shop" / "k1" / "examples.parquet", example_id=["e7", "e8"], client=[7, 8])
    mine = [
        write(tmp_path / "data" / "raw" / "shop" / "clients" / "all.parquet", client=[7, 8]),
        write(state / "verdicts" / "shop" / "v1" / "scores.parquet", example_id=["e7"]).parent,
        write(state / "releases" / "shop" / "aa" / "scores.parquet", example_id=["e7"]).parent,
        state / "features" / "shop" / "k1",
    ]
    for path in (
        tmp_path / "data" / "raw" / "other" / "clients" / "all.parquet",
        state / "verdicts" / "other" / "v1" / "scores.parquet",
    ):
        write(path, client=[7], example_id=["e7"])
    write(state / "verdicts" / "shop" / "v2" / "scores.parquet", example_id=["e8"])
    derived = state / "releases" / "shop" / "bb"
    derived.mkdir(parents=True)
    (derived / "manifest.json").write_text(json.dumps({"sealed": {"data": "d.dir"}}))
    assert example_ids(ROW, state) == {"7", "e7"}
    assert {each.path for each in find_row(ROW, config, ())} == set(mine)
    found = find_row(ROW, config, ("d.dir",))
    assert {each.path for each in found} == {*mine, derived}
    for each in [*found, *found]:  # killed half way, it is started again
        remove_finding(each)
    assert find_row(ROW, config, ("d.dir",)) == []
    assert (state / "verdicts" / "other" / "v1" / "scores.parquet").is_file()


def test_a_snapshot_goes_from_cache_and_remote(tmp_path):
    """A file that another snapshot shares stays."""
    state, remote = tmp_path / "state", str(tmp_path / "remote")
    validation = Validation(
        source="s", rows=1, quarantined={}, failed=[], warnings=[], expectations=0, docs=None, quarantine=None
    )

    def store(**files: Path) -> Any:
        batches = ValidatedBatches(source="s", files=files, rows=1, quarantined=0, validation=validation)
        return store_snapshot("shop", AS_OF, [batches], store=state / "store", remote=remote)

    shared, own = write(tmp_path / "a.parquet", client=[1]), write(tmp_path / "b.parquet", client=[7])
    left, removed = store(a=shared), store(a=shared, b=own)
    text = removed.path.with_suffix(".dvc").read_text()
    assert remove_snapshots([removed.path], state / "store", remote) == 2
    assert not removed.path.exists()
    content = own.read_bytes()
    for place in (state / "store", tmp_path / "remote"):
        assert not [path for path in place.rglob("*") if path.is_file() and path.read_bytes() == content]
    pointer = left.path.with_suffix(".dvc").read_text()
    again = restore_snapshot("shop", AS_OF, pointer, store=tmp_path / "new" / "store", remote=remote)
    assert again.digest == left.digest
    assert "outs" in text


def test_a_call_loses_its_texts_and_nothing_else(tmp_path):
    """The log forgets what named the row; time, key and price stay, and other calls whole."""
    line: dict[str, Any] = dict.fromkeys(COLUMNS, "") | dict.fromkeys((*NUMBERS, *SECONDS), 0) | {"retrieval": None}
    calls = [
        line | {"id": id_, "at": 86_400.0 + i, "case": case, "request": json.dumps({"rows": [{"client": client}]})}
        for i, (id_, case, client) in enumerate([("a", "shop", 7), ("b", "shop", 8), ("c", "other", 7)])
    ]
    pack(map(json.dumps, calls), tmp_path)
    (tmp_path / "w.jsonl").write_text(json.dumps(calls[0] | {"id": "new"}) + "\n")
    found = find_calls(tmp_path, ROW, EXAMPLES)
    assert sorted(id_ for ids in found.values() for id_ in ids) == ["a", "new"]
    for path, ids in found.items():
        if path.suffix == ".parquet":
            forget_calls(path, ids)
    with reading_log(tmp_path) as db:
        rows = dict(db.execute("SELECT id, request FROM logged WHERE id <> 'new'").fetchall())
    assert rows["a"] == ""
    assert all("client" in rows[id_] for id_ in "bc")


def test_a_call_in_a_log_of_an_earlier_version_loses_its_texts(tmp_path):
    """A right to be forgotten does not end with a new name of a column."""
    path = write(
        tmp_path / "day=1970-01-02" / "old.parquet", id=["a"], case=["shop"], asked=['{"rows": [{"client": 7}]}']
    )
    assert find_calls(tmp_path, ROW, EXAMPLES) == {path: {"a"}}
    forget_calls(path, {"a"})
    assert not find_calls(tmp_path, ROW, EXAMPLES)


def test_feedback_and_predictions_of_the_row_go(tmp_path):
    with closing(Store(Settings(state=tmp_path))) as store:
        with store.writing() as connection:
            usage = entry(1, 20_000, "done")
            connection.execute(insert(usage_records).values(usage | {"case": "shop"}))
            request = {"request_id": usage["id"], "at": 1.0, "team": "t", "key": "k"}
            for example in ("7", "8"):
                payload = {"example_id": example, "label": 1}
                connection.execute(insert(feedback).values(request | {"payload": payload}))
            connection.execute(insert(predictions).values(request_id=usage["id"], classes={"7": "1", "8": "0"}))
        numbers, classes = find_feedback(store, ROW, EXAMPLES)
        assert (len(numbers), classes) == (1, {usage["id"]: {"8": "0"}})
        forget_feedback(store, numbers, classes)
        assert find_feedback(store, ROW, EXAMPLES) == ([], {})


def test_a_row_is_named_by_the_key_of_a_source():
    case = load_case("credit", ROOT / "configs")
    assert find_key(case, "10004", None) == Row(case="credit", columns=("client_id",), values=("10004",))
    with pytest.raises(InputError, match="no such source"):
        find_key(case, "10004", "orders")
    with pytest.raises(InputError, match="whole key"):
        find_key(case, "", None)
