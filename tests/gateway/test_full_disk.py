"""Promise: on a full disk the gateway answers completely or with 503, reports why, and recovers when there is space."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from services.gateway.call import Call
from services.gateway.usage_writer import UsageWriter
from services.store.api_error import ApiError
from services.store.database import DONE, FAILED, Store, budgets, usage_records
from services.store.keys import create_key, read_keyring
from tasks.core.settings import ROOT
from tests.gateway.in_process import call_of, settings_of, until


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(settings_of(tmp_path))) as store:
        yield store


class Disk:
    """Denies SQLite further pages, as a full disk does, until there is space again."""

    def __init__(self, store: Store) -> None:
        self.full = False
        event.listen(store.engine, "begin", self._limit)

    def _limit(self, connection: Any) -> None:
        cursor = connection.connection.cursor()
        pages = cursor.execute("PRAGMA page_count").fetchone()[0]
        cursor.execute(f"PRAGMA max_page_count = {pages if self.full else 1_000_000}")


def test_an_unsettled_call_is_free_and_recorded_later(store: Store):
    """It can't be settled: its client gets 503; its record is written and its reservation released later."""
    id_, _ = create_key(store, "team", ["predict"], None, None, 1.0)
    disk = Disk(store)

    async def run() -> list[Call]:
        key = next(iter(read_keyring(store).by_hash.values()))
        writer, calls = UsageWriter(store, "w"), [call_of(key) for _ in range(300)]
        for call in calls:
            call.reserved = 1000
            await writer.open(call)
            call.classes = {"row": "x" * 20_000}  # more than the rest of a page: not even a batch of one fits
            call.engine_seconds = 1.0
        with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM")  # else pages that were free before would take some
        disk.full = True
        outcomes = await asyncio.gather(*(settle(writer, call) for call in calls))
        assert set(outcomes) == {503}
        assert "full" in writer.problem
        disk.full = False
        await until(lambda: not writer.problem and not writer._late)
        assert writer.dropped == 0
        writer.close()
        return calls

    calls = asyncio.run(run())
    with store.reading() as connection:
        entries = {row["id"]: row for row in connection.execute(select(usage_records)).mappings()}
        budget = connection.execute(select(budgets)).mappings().one()
    assert {call.id for call in calls} <= set(entries)
    assert {(entries[call.id]["state"], entries[call.id]["price"]) for call in calls} == {(FAILED, 0)}
    assert (budget["owner"], budget["spent"], budget["reserved"]) == (f"key:{id_}", 0, 0)


def test_an_unopened_call_is_recorded_when_it_ends(store: Store):
    disk = Disk(store)

    async def run() -> Call:
        writer = UsageWriter(store, "w")
        disk.full = True
        call = await first_unopened(writer)
        disk.full = False
        assert await settle(writer, call) == 200
        writer.close()
        return call

    call = asyncio.run(run())
    with store.reading() as connection:
        assert connection.execute(select(usage_records.c.state).where(usage_records.c.id == call.id)).scalar() == DONE


async def first_unopened(writer: UsageWriter) -> Call:
    """Fill the last pages with calls until one can't be opened."""
    while True:
        call = call_of()
        try:
            await writer.open(call)
        except ApiError:
            return call
        await settle(writer, call)


async def settle(writer: UsageWriter, call: Call) -> int:
    call.finish(DONE, 200)
    try:
        await writer.settle(call)
    except ApiError as refusal:
        return refusal.status
    return 200


ODD = [("tokens_out", 10**30), ("status", 2**70), ("retries", "x" * 10), ("classes", {"a": "\ud800"}), ("price", 2**80)]


@pytest.mark.parametrize(("name", "value"), ODD, ids=lambda value: str(value)[:20])
def test_a_bad_record_fails_alone(store: Store, name: str, value: Any):
    """Whatever a call holds that the store does not take, the calls of its batch are entered."""

    async def run() -> list[int]:
        writer, calls = UsageWriter(store, "w"), [call_of() for _ in range(30)]
        for call in calls:
            await writer.open(call)
            call.finish(DONE, 200)
        setattr(calls[7], name, value)
        await asyncio.gather(*(writer.settle(call) for call in calls))
        after = call_of()
        await writer.open(after)
        assert await settle(writer, after) == 200
        writer.close()
        return [len(calls) + 1]

    (count,) = asyncio.run(run())
    with store.reading() as connection:
        states = connection.execute(select(usage_records.c.state)).scalars().all()
    assert states == [DONE] * count


SCRIPT = """
import asyncio, json, sys, os
from pathlib import Path
from services.store.api_error import ApiError
from services.store.database import DONE, Store, usage_records
from tests.gateway.in_process import call_of, in_process_gateway, settings_of, until

async def use(gateway):
    call = call_of()
    try:
        await gateway.metering.begin(call, 10, {})
        await gateway.metering.end(call, DONE, 200)
        return 200
    except ApiError as refusal:
        return refusal.status

async def status(client, wanted):
    for _ in range(1500):
        answer = await client.get("/readyz")
        if answer.status_code == wanted:
            return answer.json()
        await asyncio.sleep(.02)
    return answer.json()

async def main(state):
    async with in_process_gateway(settings_of(state)) as (gateway, client):
        seen = {"before": (await status(client, 200))["status"], "used_before": [await use(gateway) for _ in range(20)]}
        filler = (state / "filler").open("wb", buffering=0)
        try:
            while True:
                filler.write(b"x" * 65536)
        except OSError:
            pass
        try:
            while True:
                filler.write(b"x" * 512)
        except OSError:
            pass
        seen["used_full"] = [await use(gateway) for _ in range(400)]
        seen["full"] = (await status(client, 503))["status"]
        seen["feedback_full"] = (await client.post("/v1/feedback/req-none", json={"label": 1})).status_code
        os.unlink(state / "filler"); filler.close()
        seen["again"] = (await status(client, 200))["status"]
        seen["used_again"] = [await use(gateway) for _ in range(20)]
        await until(lambda: gateway.readiness.details["failing_loops"] == [])
        details = (await client.get("/readyz")).json()
        seen["lost"] = [details["unlogged"], details["unentered"]]
    store = Store(settings_of(state))
    with store.reading() as connection:
        seen["entries"] = len(connection.execute(usage_records.select()).all())
    from services.gateway.request_log import reading_log
    with reading_log(state / "gateway" / "requests") as db:
        seen["logged"] = db.execute("SELECT count(DISTINCT id) FROM logged").fetchone()[0]
    print(json.dumps(seen))

asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_gateway_lives_through_a_full_disk(tmp_path: Path):
    """On a real file system of 3 MB that fills up under it."""
    mount = f'mount -t tmpfs -o size=3m tmpfs "{tmp_path}" && exec "$0" "$@"'
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "-rm", "sh", "-c", mount, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a small file system")
    command = [unshare, "-rm", "sh", "-c", mount, sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    print(seen)
    assert set(seen["used_before"]) == set(seen["used_again"]) == {200}
    assert 503 in seen["used_full"]
    assert set(seen["used_full"]) <= {200, 503}
    assert (seen["before"], seen["again"]) == ("ready", "ready")
    assert "can't be written" in seen["full"]
    assert seen["feedback_full"] in (404, 503)
    assert seen["lost"] == [0, 0]
    assert seen["entries"] == seen["logged"] == 440
