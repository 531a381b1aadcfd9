"""The ledger: one entry a call, opened before it with its price reserved, settled after it, whatever became of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from services.gateway.budgets import ALLOWED, RESERVED, pay
from services.gateway.call import Call
from services.gateway.usage_transaction import (
    OPENS,
    SETTLED,
    SETTLES,
    TOPS_UP,
    BudgetDays,
    UsageRecord,
    encodable,
    without_budgets,
    write_records,
)
from services.store.api_error import ApiError
from services.store.database import DAY, LOST, OPEN, Store, config_version, now, usage_records, workers
from tasks.core.loops import ThreadLoop

MOST_AT_ONCE = 500  # entries of one transaction
MOST_LATE = 50_000  # entries that wait in memory for a store that can't be written
RETRY = 1.0  # seconds between tries to write them
LIVES = 60.0  # seconds after which a worker that says nothing is taken for dead

Outcome = str | Exception


class UsageWriter:
    """A thread writes what all calls of this process enter, as much at once as has come in meanwhile."""

    def __init__(self, store: Store, worker: str) -> None:
        self.problem = ""  # why the store can't be written, while it can't
        self.dropped = 0  # entries that found no room to wait for it
        self._store, self._worker, self._memo = store, worker, BudgetDays()
        self._entries: queue.SimpleQueue[UsageRecord | None] = queue.SimpleQueue()
        self._late: deque[UsageRecord] = deque()
        self._retry_at = 0.0
        self._loop = ThreadLoop("ledger", self._write, max_backoff=RETRY)
        self._loop.start()

    async def open(self, call: Call) -> None:
        """Enter a call, and reserve what it may cost from the budgets of its key.

        Without a budget nobody need wait for it: it is written within milliseconds, and before any answer goes out.
        Raises: Refusal when the budget does not allow it, or the ledger can't be written.
        """
        done = asyncio.get_running_loop().create_future() if call.key.budgets or self.problem else None
        self._entries.put(UsageRecord(_row(call, self._worker), OPENS, {}, done))
        if done is None:
            return
        outcome = await _written(done)
        if outcome == RESERVED:
            message = "What is left of the budget is reserved by calls under way. Try again when some have ended."
            raise ApiError(429, message, code="budget_reserved", wait=1)
        if outcome != ALLOWED:
            message = "The budget of this key or its team is spent: what is left does not pay for this call."
            raise ApiError(429, message, code="insufficient_quota")

    async def top_up(self, call: Call, amount: int) -> bool:
        """Reserve more for a call under way, in billionths; return whether its budgets allow it.

        Raises: Refusal when the ledger can't be written.
        """
        done = asyncio.get_running_loop().create_future()
        self._entries.put(UsageRecord(_row(call, self._worker), TOPS_UP, {}, done, amount))
        return await _written(done) == ALLOWED

    async def settle(self, call: Call) -> None:
        """Enter how a call ended; it is on disk when this returns.

        Raises: Refusal when the ledger can't be written, which costs nobody anything.
        """
        done = asyncio.get_running_loop().create_future()
        self._entries.put(UsageRecord(_row(call, self._worker), SETTLES, call.classes, done))
        await asyncio.shield(_written(done))

    def close(self) -> None:
        """Write what is left."""
        self._entries.put(None)
        self._loop.thread.join()

    def _write(self) -> None:
        """Write what has come in; while the store can't be written, look now and then whether it can."""
        uneasy = self.problem or self._late or self._loop.is_failing
        try:
            entries = [self._entries.get(timeout=RETRY if uneasy else None)]
        except queue.Empty:
            entries = []
        while entries and len(entries) < MOST_AT_ONCE and entries[-1] is not None:
            try:
                entries.append(self._entries.get_nowait())
            except queue.Empty:
                break
        if batch := [entry for entry in entries if entry is not None]:
            self._write_batch(batch)
        while (self.problem or self._late) and time.monotonic() >= self._retry_at:
            self._write_late()
        if entries and entries[-1] is None:
            while self._late and self._write_late():
                pass
            self._loop.stopping.set()

    def _write_batch(self, batch: Sequence[UsageRecord]) -> None:
        """Write a batch, or where one entry spoils it, its halves: that entry fails alone."""
        outcomes: list[Outcome]
        try:
            outcomes = [*self._commit(batch)]
        except Exception as error:  # noqa: BLE001 (calls wait for an outcome, whatever it is)
            if self._is_down(error):
                outcomes = [error] * len(batch)
                self._keep(batch, error)
            elif len(batch) > 1:
                self._write_batch(batch[: len(batch) // 2])
                self._write_batch(batch[len(batch) // 2 :])
                return
            else:
                outcomes = [self._write_plain(batch[0], error)]
        _resolve(batch, outcomes)

    def _write_plain(self, entry: UsageRecord, error: Exception) -> Outcome:
        """Enter what can be entered of a call whose entry the store does not take."""
        logging.getLogger("driftline").error("The ledger does not take %s: %r", entry.row["id"], error)
        try:
            return self._commit([encodable(entry)])[0]
        except Exception as again:  # noqa: BLE001
            if entry.kind == OPENS:
                self._memo.unopened.add(entry.row["id"])
            self.dropped += 1
            return again

    def _commit(self, batch: Sequence[UsageRecord]) -> list[str]:
        memo = self._memo.copy()
        with self._store.writing() as to:
            outcomes = write_records(to, batch, memo)
            if not batch:  # a try whether the store can be written
                to.execute(update(config_version).values(version=config_version.c.version))
        self._memo = memo
        if self.problem:
            logging.getLogger("driftline").warning("The ledger can be written again.")
            self.problem = ""
        return outcomes

    def _is_down(self, error: Exception) -> bool:
        """Whether the store takes nothing now: a full or broken disk, a server that is gone."""
        invalid = isinstance(error, DBAPIError) and error.connection_invalidated
        return invalid or isinstance(error, OperationalError | InternalError | PoolTimeout | OSError)

    def _keep(self, batch: Sequence[UsageRecord], error: Exception) -> None:
        """Remember what could not be written; the calls themselves fail."""
        if not self.problem:
            logging.getLogger("driftline").error("The ledger can't be written: %s", error)
        reason = str(getattr(error, "orig", None) or error)
        self.problem, self._retry_at = " ".join(reason.split())[:200], time.monotonic() + RETRY
        for entry in batch:
            if entry.kind == OPENS:
                self._memo.unopened.add(entry.row["id"])
            elif entry.kind == SETTLES and len(self._late) < MOST_LATE:
                self._late.append(without_budgets(entry))
            elif entry.kind == SETTLES:
                self.dropped += 1
                self._memo.unopened.discard(entry.row["id"])

    def _write_late(self) -> bool:
        """Try to write some of what waits, or else anything; whether that worked."""
        some = [self._late.popleft() for _ in range(min(len(self._late), MOST_AT_ONCE))]
        try:
            self._commit(some)
        except Exception as error:  # noqa: BLE001 (they wait on, or fail one by one)
            self._retry_at = time.monotonic() + RETRY
            if self._is_down(error):
                self._late.extendleft(reversed(some))
                return False
            for entry in some:
                self._write_plain(entry, error)
        return True


def close_lost_calls(store: Store) -> int:
    """Settle the calls of workers that died under them: what was reserved counts as spent. Gives how many."""
    with store.writing() as to:
        living = select(workers.c.id).where(workers.c.last_seen > now() - LIVES)
        lost = usage_records.c.state == OPEN, usage_records.c.worker.not_in(living)
        rows = to.execute(
            select(usage_records.c.id, usage_records.c.budgets, usage_records.c.reserved).where(*lost)
        ).all()
        for id_, owners, reserved in rows:
            pay(to, owners or (), reserved, reserved)
            to.execute(update(usage_records).where(usage_records.c.id == id_).values(state=LOST, price=reserved))
    return len(rows)


def _row(call: Call, worker: str) -> dict[str, Any]:
    return {
        "id": call.id,
        "at": call.at,
        "day": int(call.at // DAY),
        "worker": worker,
        "interface": call.interface,
        "team": call.key.team,
        "key": call.key.id,
        "case": call.share.route.case,
        "digest": call.share.route.digest,
        "role": call.share.role,
        "budgets": list(call.key.budgets),
        "reserved": call.reserved,
        **{name: getattr(call, name) for name in SETTLED},
    }


async def _written(done: asyncio.Future[str]) -> str:
    try:
        return await done
    except Exception as error:
        raise ApiError(503, "The ledger can't be written, so nothing is answered.", wait=5) from error


def _resolve(batch: Sequence[UsageRecord], outcomes: Sequence[Outcome]) -> None:
    waiting = [(e.done, outcome) for e, outcome in zip(batch, outcomes, strict=True) if e.done is not None]
    if waiting:
        with contextlib.suppress(RuntimeError):  # their event loop has ended, and they with it
            waiting[0][0].get_loop().call_soon_threadsafe(_tell, waiting)


def _tell(waiting: Sequence[tuple[asyncio.Future[str], Outcome]]) -> None:
    for future, outcome in waiting:
        if future.done():
            continue
        tell: Callable[[Any], None] = future.set_exception if isinstance(outcome, Exception) else future.set_result
        tell(outcome)
