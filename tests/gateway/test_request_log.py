"""Promise: the request log never stops; it counts what it could not write, and continues when it can."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from services.gateway.call import Call
from services.gateway.log_redaction import LogRedaction
from services.gateway.request_log import RequestLog, pack, reading_log
from tests.gateway.in_process import call_of
from tests.waiting import wait_for


class Counted:
    """A log in a folder, with the calls that it says it lost."""

    def __init__(self, folder: Path, logged: Callable[[bytes], str] = bytes.decode) -> None:
        self.lost = 0
        self.log = RequestLog(folder, "worker", logged, self._lose)

    def _lose(self) -> None:
        self.lost += 1


def ids(folder: Path) -> set[str]:
    with reading_log(folder) as db:
        return {row[0] for row in db.execute("SELECT id FROM logged").fetchall()}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_loses_nothing(tmp_path: Path):
    """While every write fails, calls wait; with space again all are written, and none counts as lost."""
    (tmp_path / "worker.jsonl").symlink_to("/dev/full")
    counted = Counted(tmp_path)
    calls = [call_of() for _ in range(50)]
    for call in calls:
        counted.log.put(call)
    assert wait_for(lambda: counted.log.loop.failures > 1, 10)
    assert "No space left" in counted.log.loop.last_error
    assert counted.log.loop.thread.is_alive()
    (tmp_path / "worker.jsonl").unlink()
    assert wait_for(lambda: not counted.log.loop.is_failing, 20)
    calls.append(call_of())
    counted.log.put(calls[-1])
    counted.log.close()
    assert ids(tmp_path) == {call.id for call in calls}
    assert counted.lost == counted.log.lost == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_what_finds_no_room_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.gateway.request_log.MAX_QUEUED", 100)
    (tmp_path / "worker.jsonl").symlink_to("/dev/full")
    counted = Counted(tmp_path)
    counted.log.put(call_of())
    assert wait_for(lambda: counted.log.loop.is_failing, 10)
    for _ in range(150):
        counted.log.put(call_of())
    assert counted.lost == 50
    counted.log.close()  # still full
    assert counted.lost == counted.log.lost == 151


def test_a_file_that_can_not_be_packed_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The day's folder can't be created: lines are still written, and packed once it can."""
    monkeypatch.setattr("services.gateway.request_log.BATCH", 1)
    call = call_of()
    day = time.strftime("%Y-%m-%d", time.gmtime(call.at))
    (tmp_path / f"day={day}").write_text("in the way")
    counted = Counted(tmp_path)
    counted.log.put(call)
    assert wait_for(lambda: counted.log.loop.failures > 1, 10)
    another = call_of()
    counted.log.put(another)
    assert wait_for(lambda: another.id in (tmp_path / "worker.jsonl").read_text(), 20)
    (tmp_path / f"day={day}").unlink()
    assert wait_for(lambda: list(tmp_path.glob("day=*/*.parquet")), 20)
    counted.log.close()
    assert ids(tmp_path) == {call.id, another.id}
    assert counted.lost == 0


def deep(levels: int) -> bytes:
    """With a value that is redacted, so that the JSON is serialised again."""
    return b'{"messages": ' + b"[" * levels + b'"ann@example.org"' + b"]" * levels + b"}"


@pytest.mark.parametrize("levels", [10, 252, 254, 255, 300, 900, 1023, 1100, 9_000])
@pytest.mark.parametrize("setting", ["masked", "full", "none"])
def test_a_body_that_nests_deep_is_logged(tmp_path: Path, levels: int, setting: str):
    call, after = call_of(), call_of()
    call.request_body = call.response_body = deep(levels)
    counted = Counted(tmp_path, LogRedaction(setting).redact_for_log)
    counted.log.put(call)
    counted.log.put(after)
    counted.log.close()
    assert ids(tmp_path) == {call.id, after.id}


@pytest.mark.parametrize("error", [RecursionError(), TypeError("Recursion limit"), MemoryError(), KeyError("x")])
def test_texts_that_fail_redaction_are_counted(tmp_path: Path, error: Exception):
    bad, good = call_of(), call_of()
    bad.request_body = b"bad"

    def logged(text: bytes) -> str:
        if text == b"bad":
            raise error
        return text.decode()

    counted = Counted(tmp_path, logged)
    counted.log.put(bad)
    counted.log.put(good)
    counted.log.close()
    assert ids(tmp_path) == {bad.id, good.id}
    assert counted.lost == 1


ODD: list[Callable[[Call], Any]] = [
    lambda call: setattr(call, "tokens_in", 10**30),
    lambda call: setattr(call, "status", "ok"),
    lambda call: setattr(call, "seconds", "long"),
    lambda call: setattr(call, "at", 9e300),
    lambda call: setattr(call, "at", None),
    lambda call: setattr(call, "id", 7),
]


@pytest.mark.parametrize("spoil", ODD)
def test_a_call_that_fits_no_column_spoils_no_other(tmp_path: Path, spoil: Callable[[Call], Any]):
    bad, good = call_of(), call_of()
    spoil(bad)
    counted = Counted(tmp_path)
    counted.log.put(bad)
    counted.log.put(good)
    counted.log.close()
    assert good.id in ids(tmp_path)
    assert list(tmp_path.glob("*.jsonl")) == []


@pytest.mark.parametrize(
    "line",
    [
        "",
        "null",
        "[]",
        "7",
        "{",
        '{"id": 1}',
        '{"at": 1}',
        pytest.param("[" * 100_000, id="deep"),
        '{"id": "x", "at": "y"}',
    ],
)
def test_bad_lines_are_passed_over(tmp_path: Path, line: str):
    good = {"id": "req-1", "at": time.time()}
    pack([line, json.dumps(good), line], tmp_path)
    assert ids(tmp_path) == {"req-1"}


def test_half_a_line_of_a_full_disk_spoils_no_other(tmp_path: Path):
    (tmp_path / "worker.jsonl").write_bytes(b'{"id": "half')
    os.utime(tmp_path / "worker.jsonl")
    counted = Counted(tmp_path)
    call = call_of()
    counted.log.put(call)
    counted.log.close()
    assert ids(tmp_path) == {call.id}
    assert orjson.loads(call.request_body) == {"rows": []}
