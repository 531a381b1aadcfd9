"""Writes usage records: one for each call, settled after it; with a budget, opened with a reservation before it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from services.gateway.budgets import ALLOWED, RESERVED, release_and_spend
from services.gateway.call import Call
from services.gateway.usage_transaction import (
    OPEN_RECORD,
    SETTLE,
    SETTLED,
    TOP_UP,
    OpenCalls,
    UsageRecord,
    encodable,
    without_budgets,
    write_records,
)
from services.store.api_error import ApiError
from services.store.database import DAY, LOST, OPEN, Store, config_version, now, usage_records, workers
from tasks.core.loops import ThreadLoop

MAX_BATCH = 500  # records of one transaction
MAX_LATE_RECORDS = 50_000  # records that wait in memory for an unavailable store
RETRY = 1.0  # seconds between attempts to write them
WORKER_TIMEOUT = 60.0  # seconds without a heartbeat after which a worker counts as dead

Outcome = str | Exception


class UsageWriter:
    """A thread that writes the records of this process's calls, in batches of those that have arrived."""

    def __init__(self, store: Store, worker: str) -> None:
        self.problem = ""  # why the store is unavailable, while it is
        self.dropped = 0  # records that found no room in memory
        self._store, self._worker, self._open_calls = store, worker, OpenCalls()
        self._records: queue.SimpleQueue[UsageRecord | None] = queue.SimpleQueue()
        self._late: deque[UsageRecord] = deque()
        self._retry_at = 0.0
        self._loop = ThreadLoop("ledger", self._write, max_backoff=RETRY)
        self._loop.start()

    async def open(self, call: Call) -> None:
        """Open the record of a call, and reserve its cost from the budgets of its key.

        A call without a budget reserves nothing: it has a record when it ends, before the end of its response is sent.
        Raises: ApiError when a budget refuses the call, or the store is unavailable.
        """
        if not call.key.budgets:
            if self.problem:
                raise _unwritable()
            return
        done = asyncio.get_running_loop().create_future()
        self._records.put(UsageRecord(_row(call, self._worker), OPEN_RECORD, {}, done))
        outcome = await _outcome_of(done)
        if outcome == RESERVED:
            message = "The rest of the budget is reserved by running calls. Try again when some have ended."
            raise ApiError(429, message, code="budget_reserved", wait=1)
        if outcome != ALLOWED:
            message = "The budget of the key or its team is exhausted: the rest does not pay for this call."
            raise ApiError(429, message, code="insufficient_quota")

    async def top_up(self, call: Call, amount: int) -> bool:
        """Reserve more for a running call, in billionths; return whether its budgets allow it.

        Raises: ApiError when the store is unavailable.
        """
        done = asyncio.get_running_loop().create_future()
        self._records.put(UsageRecord(_row(call, self._worker), TOP_UP, {}, done, amount))
        return await _outcome_of(done) == ALLOWED

    async def settle(self, call: Call) -> None:
        """Settle the record of a call; it is on disk when this returns.

        Raises: ApiError when the store is unavailable; then the call is free.
        """
        done = asyncio.get_running_loop().create_future()
        self._records.put(UsageRecord(_row(call, self._worker), SETTLE, call.classes, done))
        await asyncio.shield(_outcome_of(done))

    def close(self) -> None:
        """Write the rest and stop."""
        self._records.put(None)
        self._loop.thread.join()

    def _write(self) -> None:
        """Write the records that have arrived; while the store is unavailable, retry periodically."""
        is_degraded = self.problem or self._late or self._loop.is_failing
        try:
            records = [self._records.get(timeout=RETRY if is_degraded else None)]
        except queue.Empty:
            records = []
        while records and len(records) < MAX_BATCH and records[-1] is not None:
            try:
                records.append(self._records.get_nowait())
            except queue.Empty:
                break
        if batch := [record for record in records if record is not None]:
            self._write_batch(batch)
        while (self.problem or self._late) and time.monotonic() >= self._retry_at:
            self._write_late()
        if records and records[-1] is None:
            while self._late and self._write_late():
                pass
            self._loop.stopping.set()

    def _write_batch(self, batch: Sequence[UsageRecord]) -> None:
        """Write a batch; if a record makes it fail, write its halves, so that this record fails alone."""
        outcomes: list[Outcome]
        try:
            outcomes = [*self._commit(batch)]
        except Exception as error:  # noqa: BLE001 (the calls wait for an outcome)
            if self._is_unavailable(error):
                outcomes = [error] * len(batch)
                self._defer(batch, error)
            elif len(batch) > 1:
                self._write_batch(batch[: len(batch) // 2])
                self._write_batch(batch[len(batch) // 2 :])
                return
            else:
                outcomes = [self._write_plain(batch[0], error)]
        _resolve(batch, outcomes)

    def _write_plain(self, record: UsageRecord, error: Exception) -> Outcome:
        """Write the valid parts of a record that the store rejects."""
        logging.getLogger("driftline").error("The store rejects the usage record %s: %r", record.row["id"], error)
        try:
            return self._commit([encodable(record)])[0]
        except Exception as again:  # noqa: BLE001
            if record.kind == OPEN_RECORD:
                self._open_calls.unopened.add(record.row["id"])
            self.dropped += 1
            return again

    def _commit(self, batch: Sequence[UsageRecord]) -> list[str]:
        open_calls = self._open_calls.copy()
        with self._store.writing() as connection:
            outcomes = write_records(connection, batch, open_calls)
            if not batch:  # probe whether the store is writable
                connection.execute(update(config_version).values(version=config_version.c.version))
        self._open_calls = open_calls
        if self.problem:
            logging.getLogger("driftline").warning("Usage records can be written again.")
            self.problem = ""
        return outcomes

    def _is_unavailable(self, error: Exception) -> bool:
        """Whether the store is unavailable: a full or broken disk, or a server that is gone."""
        invalid = isinstance(error, DBAPIError) and error.connection_invalidated
        return invalid or isinstance(error, OperationalError | InternalError | PoolTimeout | OSError)

    def _defer(self, batch: Sequence[UsageRecord], error: Exception) -> None:
        """Keep the records for later; the calls themselves fail."""
        if not self.problem:
            logging.getLogger("driftline").error("Usage records can't be written: %s", error)
        reason = str(getattr(error, "orig", None) or error)
        self.problem, self._retry_at = " ".join(reason.split())[:200], time.monotonic() + RETRY
        for record in batch:
            if record.kind == OPEN_RECORD:
                self._open_calls.unopened.add(record.row["id"])
            elif record.kind == SETTLE and len(self._late) < MAX_LATE_RECORDS:
                self._late.append(without_budgets(record))
            elif record.kind == SETTLE:
                self.dropped += 1
                self._open_calls.unopened.discard(record.row["id"])

    def _write_late(self) -> bool:
        """Try to write deferred records, or else a probe; return whether the store was available."""
        some = [self._late.popleft() for _ in range(min(len(self._late), MAX_BATCH))]
        try:
            self._commit(some)
        except Exception as error:  # noqa: BLE001 (the records are deferred again, or fail one by one)
            self._retry_at = time.monotonic() + RETRY
            if self._is_unavailable(error):
                self._late.extendleft(reversed(some))
                return False
            for record in some:
                self._write_plain(record, error)
        return True


def close_lost_calls(store: Store) -> int:
    """Settle the open calls of dead workers: what was reserved counts as spent. Returns their number."""
    with store.writing() as connection:
        living = select(workers.c.id).where(workers.c.last_seen > now() - WORKER_TIMEOUT)
        lost = usage_records.c.state == OPEN, usage_records.c.worker.not_in(living)
        rows = connection.execute(
            select(usage_records.c.id, usage_records.c.budgets, usage_records.c.reserved).where(*lost)
        ).all()
        for id_, owners, reserved in rows:
            release_and_spend(connection, owners or (), reserved, reserved)
            connection.execute(
                update(usage_records).where(usage_records.c.id == id_).values(state=LOST, price=reserved)
            )
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
        **{name: getattr(call, name) for name in SETTLED if name not in ("retrieval", "guard")},
        "guard": call.guard.json(),
        "retrieval": call.retrieval.model_dump(mode="json") if call.retrieval else None,
    }


async def _outcome_of(done: asyncio.Future[str]) -> str:
    try:
        return await done
    except Exception as error:
        raise _unwritable() from error


def _unwritable() -> ApiError:
    return ApiError(503, "Usage records can't be written, so calls are refused.", wait=5)


def _resolve(batch: Sequence[UsageRecord], outcomes: Sequence[Outcome]) -> None:
    waiting = [(e.done, outcome) for e, outcome in zip(batch, outcomes, strict=True) if e.done is not None]
    if waiting:
        with contextlib.suppress(RuntimeError):  # their event loop has ended, and the calls with it
            waiting[0][0].get_loop().call_soon_threadsafe(_set_outcomes, waiting)


def _set_outcomes(waiting: Sequence[tuple[asyncio.Future[str], Outcome]]) -> None:
    for future, outcome in waiting:
        if future.done():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
