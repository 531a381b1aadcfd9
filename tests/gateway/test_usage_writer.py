"""Usage records and budgets, on a real store without a server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from services.gateway.call import Call
from services.gateway.usage_writer import UsageWriter, close_lost_calls
from services.rollout.routing import Route, Share
from services.store.api_error import ApiError
from services.store.costs import summarize_costs
from services.store.database import ABORTED, DONE, LOST, Store, budgets, now, usage_records, workers
from services.store.keys import create_key, read_keyring
from tasks.core.settings import ROOT, Settings
from tasks.release.config import NANO, Price

ROUTE = Route("d" * 64, "talker", "llm", (), Price(tokens_in=1, tokens_cached=0.5, tokens_out=4, machine_hour=0))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(Settings(state=tmp_path))
    yield store
    store.close()


def call_of(store: Store, secret_id: str | None = None) -> Call:
    keys = {key.id: key for key in read_keyring(store).by_hash.values()}
    return Call("chat", keys[secret_id] if secret_id else next(iter(keys.values())), Share(ROUTE, "champion"))


def test_a_hundred_calls_at_once_do_not_overspend(store: Store) -> None:
    """Of 100 calls that could each cost 1, a budget of 10 lets 10 begin; what they don't use lets others follow."""
    id_, _ = create_key(store, "a", ["predict"], None, None, budget=10)
    writer = UsageWriter(store, "w")
    refusals: set[tuple[int, str | None]] = set()

    async def one(uses: int) -> bool:
        call = call_of(store, id_)
        call.reserved = NANO
        try:
            await writer.open(call)
        except ApiError as refusal:
            refusals.add((refusal.status, refusal.code))
            return False
        call.tokens_out = uses
        await asyncio.sleep(0.2)
        call.finish(DONE, 200)
        await writer.settle(call)
        return True

    async def many(uses: int) -> int:
        return sum(await asyncio.gather(*(one(uses) for _ in range(100))))

    assert asyncio.run(many(125_000)) == 10  # each costs half of its reserve
    assert asyncio.run(many(250_000)) == 5
    assert asyncio.run(many(1)) == 0
    writer.close()
    assert refusals == {(429, "budget_reserved"), (429, "insufficient_quota")}
    with store.reading() as connection:
        purse = connection.execute(select(budgets)).mappings().one()
        assert (purse["spent"], purse["reserved"]) == (10 * NANO, 0)
        assert connection.execute(select(func.sum(usage_records.c.price))).scalar() == 10 * NANO


def test_a_killed_gateways_calls_are_recorded(store: Store, tmp_path: Path) -> None:
    """kill -9 during a call: its record is there, and its reservation counts as spent."""
    create_key(store, "a", ["predict"], None, None, budget=10)
    code = """
import asyncio, os, sys
from tasks.core.settings import settings
from services.gateway.usage_writer import UsageWriter
from services.store.database import Store
from tests.gateway.test_usage_writer import call_of
async def main():
    store = Store(settings())
    call = call_of(store)
    call.reserved = 3
    await UsageWriter(store, "dead").open(call)
    print(call.id, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    environment = {**os.environ, "DRIFTLINE_STATE": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout
        id_ = process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
    assert close_lost_calls(store) == 1
    assert close_lost_calls(store) == 0
    with store.reading() as connection:
        entry = connection.execute(select(usage_records)).mappings().one()
        assert (entry["id"], entry["state"], entry["price"]) == (id_, LOST, 3)
        purse = connection.execute(select(budgets)).mappings().one()
        assert (purse["spent"], purse["reserved"]) == (3, 0)


def test_a_gateway_that_only_slept_pays_once(store: Store) -> None:
    """Taken for dead and its call for lost, it wakes up and settles: the budget is charged what the call cost."""
    id_, _ = create_key(store, "a", ["predict"], None, None, budget=10)

    async def sleep_and_settle() -> None:
        writer = UsageWriter(store, "asleep")
        call = call_of(store, id_)
        call.reserved = NANO
        await writer.open(call)
        assert close_lost_calls(store) == 1
        call.tokens_out = 125_000
        call.finish(DONE, 200)
        await writer.settle(call)
        writer.close()

    asyncio.run(sleep_and_settle())
    with store.reading() as connection:
        purse = connection.execute(select(budgets)).mappings().one()
    assert (purse["spent"], purse["reserved"]) == (NANO // 2, 0)


def test_a_living_gateways_calls_are_left_alone(store: Store) -> None:
    create_key(store, "a", ["predict"], None, None, budget=10)
    with store.writing() as connection:
        connection.execute(workers.insert().values(id="alive", last_seen=now()))

    async def begin() -> None:
        writer = UsageWriter(store, "alive")
        await writer.open(call_of(store))
        writer.close()

    asyncio.run(begin())
    assert close_lost_calls(store) == 0
    with store.writing() as connection:
        connection.execute(update(workers).values(last_seen=0))
    assert close_lost_calls(store) == 1


def test_a_call_without_a_budget_is_recorded_at_its_end(store: Store) -> None:
    """In one row, once; nothing is written before."""
    create_key(store, "a", ["predict"], None, None, None)

    async def one() -> list[int]:
        writer = UsageWriter(store, "w")
        call = call_of(store)
        await writer.open(call)
        counts = [_rows(store)]
        call.finish(DONE, 200)
        await writer.settle(call)
        counts.append(_rows(store))
        writer.close()
        return counts

    assert asyncio.run(one()) == [0, 1]
    assert close_lost_calls(store) == 0


def _rows(store: Store) -> int:
    with store.reading() as connection:
        return connection.execute(select(func.count()).select_from(usage_records)).scalar_one()


def test_costs_add_up_whatever_they_are_summed_by(store: Store) -> None:
    """By team, case, release and day the same sums, aborted calls included."""
    first, second = (create_key(store, team, ["predict"], None, None, None)[0] for team in ("a", "b"))

    async def calls() -> None:
        writer = UsageWriter(store, "w")
        for key, state, tokens in ((first, DONE, 1000), (first, ABORTED, 10), (second, DONE, 500)):
            call = call_of(store, key)
            call.tokens_in, call.tokens_cached = tokens, tokens // 2
            await writer.open(call)
            call.finish(state, 200)
            await writer.settle(call)
        writer.close()

    asyncio.run(calls())
    by_team = {row["team"]: row for row in summarize_costs(store, "team")}
    assert (by_team["a"]["calls"], by_team["a"]["failed"], by_team["b"]["calls"]) == (2, 1, 1)
    assert by_team["a"]["spent"] == pytest.approx(1010 * 0.75e-6)
    for by in ("case", "release", "day"):
        (row,) = summarize_costs(store, by)
        assert row["spent"] == pytest.approx(1510 * 0.75e-6)
        assert row["tokens_in"] == 1510
