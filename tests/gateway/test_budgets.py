"""Promise: a budget is never overspent, and refuses no call for a cost that is only possible."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import func, select

from services.gateway.budget_meter import BudgetExhausted
from services.gateway.call import Call
from services.gateway.metering import Metering
from services.gateway.metrics import GatewayMetrics
from services.gateway.rate_limits import RateLimits
from services.gateway.usage_writer import UsageWriter
from services.rollout.routing import Route
from services.store.api_error import ApiError
from services.store.database import ABORTED, DONE, FAILED, Store, budgets, usage_records
from services.store.keys import Key, create_key, list_keys, read_keyring
from tasks.core.settings import ROOT
from tasks.release.config import NANO, Price
from tests.gateway.in_process import call_of, settings_of, until

TABLE = Route("d" * 64, "shop", "tabular", ("http://a",), Price())  # .10 an hour of the machine
CHAT = Route("e" * 64, "talker", "llm", ("http://a",), Price(tokens_in=1, tokens_out=4, machine_hour=0), (), 4096, 512)
SIZE = 200  # bytes of a request


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(settings_of(tmp_path))) as store:
        yield store


class Process:
    """The metering of a gateway process."""

    def __init__(self, store: Store, worker: str = "w") -> None:
        self.usage_writer = UsageWriter(store, worker)
        log: Any = SimpleNamespace(put=lambda call: None)
        self.metering = Metering(RateLimits(), self.usage_writer, GatewayMetrics(), log)

    async def answer(self, key: Key, route: Route, seconds: float, tokens_out: int = 0, work: float = 0.05) -> str:
        """The state of a call that needs so many seconds of the machine, or the code of its refusal."""
        call = call_of(key, route, "chat" if route.kind == "llm" else "predict")
        try:
            await self.metering.begin(call, SIZE, {"messages": []} if route.kind == "llm" else {})
        except ApiError as refusal:
            return str(refusal.code)
        await asyncio.sleep(work)
        call.engine_seconds, call.tokens_in, call.tokens_out = seconds, 40 if route.kind == "llm" else 0, tokens_out
        await self.metering.end(call, DONE, 200)
        return call.state


def key_with(store: Store, budget: float) -> Key:
    id_, _ = create_key(store, "team", ["predict"], None, None, budget)
    return next(key for key in read_keyring(store).by_hash.values() if key.id == id_)


def spent(store: Store) -> tuple[int, int, int]:
    """What the budget and the ledger say was spent, and what is reserved."""
    with store.reading() as connection:
        purse = connection.execute(select(budgets)).mappings().one()
        return (
            purse["spent"],
            connection.execute(select(func.sum(usage_records.c.price))).scalar() or 0,
            purse["reserved"],
        )


@pytest.mark.parametrize(("route", "seconds", "tokens"), [(TABLE, 0.0001, 0), (CHAT, 0.5, 10)])
def test_a_hundred_cheap_first_calls_are_answered(store: Store, route: Route, seconds: float, tokens: int):
    """A budget of a hundred times their cost refuses none, although their cost is still unknown."""
    key = key_with(store, 0.05)

    async def run() -> list[str]:
        process = Process(store)
        states = await asyncio.gather(*(process.answer(key, route, seconds, tokens) for _ in range(100)))
        process.usage_writer.close()
        return list(states)

    assert set(asyncio.run(run())) == {DONE}
    paid, entered, reserved = spent(store)
    assert (paid, reserved) == (entered, 0)


def test_later_calls_reserve_what_such_calls_cost(store: Store):
    """Once it is known that a call costs .000003, a budget of .0005 lets 100 begin at once."""
    key, rich = key_with(store, 0.0005), key_with(store, 1.0)

    async def run() -> list[str]:
        process = Process(store)
        for _ in range(20):
            await process.answer(rich, TABLE, 0.1, work=0)
        states = await asyncio.gather(*(process.answer(key, TABLE, 0.1) for _ in range(100)))
        process.usage_writer.close()
        return list(states)

    assert set(asyncio.run(run())) == {DONE}


def test_refusals_name_reserved_or_spent(store: Store):
    key = key_with(store, 0.00001)  # of which the first call reserves most

    async def run() -> list[ApiError]:
        process, refusals = Process(store), []
        under_way = call_of(key, TABLE)
        await process.metering.begin(under_way, SIZE, {})
        assert list_keys(store)[0]["reserved"] == under_way.reserved / NANO > 0
        for spend in (False, True):
            if spend:
                under_way.engine_seconds = 0.3
                await process.metering.end(under_way, DONE, 200)
            with pytest.raises(ApiError) as refused:
                await process.metering.begin(call_of(key, TABLE), SIZE, {})
            refusals.append(refused.value)
        process.usage_writer.close()
        return refusals

    by_reserve, by_spent = asyncio.run(run())
    assert (by_reserve.status, by_reserve.code, by_reserve.headers) == (429, "budget_reserved", {"retry-after": "1"})
    assert (by_spent.status, by_spent.code, by_spent.headers) == (429, "insufficient_quota", {})
    assert by_reserve.message != by_spent.message


@pytest.mark.parametrize("seconds", [0.2, 5.0, 60.0, 3600.0])
def test_a_hundred_calls_of_any_length_never_overspend(store: Store, seconds: float):
    """Also when all of them cost far more than anybody expected."""
    budget = 0.0001
    key = key_with(store, budget)

    async def run() -> list[str]:
        process = Process(store)
        states = await asyncio.gather(*(process.answer(key, TABLE, seconds) for _ in range(100)))
        states += await asyncio.gather(*(process.answer(key, TABLE, seconds) for _ in range(100)))
        process.usage_writer.close()
        return list(states)

    states = asyncio.run(run())
    assert {DONE} < set(states) <= {DONE, "budget_reserved", "insufficient_quota"}
    paid, entered, reserved = spent(store)
    assert paid == entered <= budget * NANO
    assert reserved == 0


def test_a_call_that_outgrows_its_reserve_gets_more(store: Store):
    key = key_with(store, 1.0)

    async def run() -> int:
        process = Process(store)
        process.metering.meter.loop.start()
        call = call_of(key, TABLE)
        await process.metering.begin(call, SIZE, {})
        first = call.reserved
        with process.metering.meter.watch(call, 0) as watched:
            call.dispatched_at = call.started - 30  # seconds ago
            await until(lambda: watched.reserved > 4 * first)
            assert not watched.stopped
            call.engine_seconds = 30.0
        await process.metering.end(call, DONE, 200)
        await process.metering.meter.loop.stop()
        process.usage_writer.close()
        return call.price

    price = asyncio.run(run())
    assert price == spent(store)[0] == round(30 / 36_000 * NANO)
    assert spent(store)[2] == 0


def test_a_call_is_stopped_when_its_budget_has_no_more(store: Store):
    """It ends with an error that says so; its usage is charged, as far as the budget allows."""
    budget = 0.0001
    key = key_with(store, budget)

    async def run() -> tuple[Call, ApiError]:
        process = Process(store)
        process.metering.meter.loop.start()
        call = call_of(key, TABLE)
        await process.metering.begin(call, SIZE, {})
        with process.metering.meter.watch(call, 0) as watched:
            call.dispatched_at = call.started - 300
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(None) as watched.timeout:
                    await asyncio.sleep(30)
        assert watched.stopped
        stopped = BudgetExhausted()
        call.engine_seconds = 300.0
        await process.metering.fail(call, stopped)
        await process.metering.meter.loop.stop()
        process.usage_writer.close()
        return call, stopped

    call, refusal = asyncio.run(run())
    assert (call.state, refusal.status, refusal.code) == (ABORTED, 429, "insufficient_quota")
    paid, entered, reserved = spent(store)
    assert 0 < paid == entered <= budget * NANO
    assert reserved == 0


def test_a_failed_call_is_free(store: Store):
    key = key_with(store, 1.0)

    async def run() -> None:
        process = Process(store)
        call = call_of(key, TABLE)
        await process.metering.begin(call, SIZE, {})
        call.engine_seconds = 60.0
        await process.metering.fail(call, ApiError(504, "It hangs."))
        assert call.state == FAILED
        process.usage_writer.close()

    asyncio.run(run())
    assert spent(store) == (0, 0, 0)


PROCESS = """
import asyncio, sys
from pathlib import Path
from services.store.keys import read_keyring
from services.store.database import Store
from tests.gateway.in_process import settings_of
from tests.gateway.test_budgets import TABLE, Process

async def main():
    store = Store(settings_of(Path(sys.argv[1])))
    key = next(iter(read_keyring(store).by_hash.values()))
    process = Process(store, sys.argv[2])
    print(await asyncio.gather(*(process.answer(key, TABLE, 2.0) for _ in range(100))))
    process.usage_writer.close()
asyncio.run(main())
"""


def test_several_gateways_on_one_store_never_overspend(store: Store, tmp_path: Path):
    budget = 0.0004
    key_with(store, budget)
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    processes = [subprocess.Popen([*command, name], cwd=ROOT, stdout=subprocess.PIPE) for name in ("one", "two")]
    states = [process.communicate(timeout=120)[0].decode() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert any(DONE in each for each in states)
    paid, entered, reserved = spent(store)
    assert 0 < paid == entered <= budget * NANO
    assert reserved == 0
