"""The ledger: one entry a call, opened before it with its price reserved, settled after it, whatever became of it."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from tasks.gateway.call import Call
from tasks.ledger.refusal import Refusal
from tasks.ledger.store import DAY, LOST, OPEN, USED, Store, ledger, now, predictions, purses, workers

MOST_AT_ONCE = 500  # entries of one transaction
LIVES = 60.0  # seconds after which a worker that says nothing is taken for dead
SETTLED = ("state", "status", "retries", *USED)


@dataclass
class _Entry:
    row: dict[str, Any]
    opens: bool
    classes: dict[str, int | str]  # of a table's answer
    done: asyncio.Future[bool] | None  # False: the budget does not allow it


class Ledger:
    """A thread writes what all calls of this process enter, as much at once as has come in meanwhile."""

    def __init__(self, store: Store, worker: str) -> None:
        self._store, self._worker = store, worker
        self._entries: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="ledger", daemon=True)
        self._thread.start()

    async def open(self, call: Call) -> None:
        """Enter a call, and reserve what it may cost from the budgets of its key.

        Without a budget nobody need wait for it: it is written within milliseconds, and before any answer goes out.
        Raises: Refusal when the budget is spent, or the ledger can't be written.
        """
        done = asyncio.get_running_loop().create_future() if call.key.purses else None
        self._entries.put(_Entry(_row(call, self._worker), True, {}, done))
        if done and not await _written(done):
            raise Refusal(429, "The budget of this key or its team is spent.", code="insufficient_quota", wait=3600)

    async def settle(self, call: Call) -> None:
        """Enter how a call ended; it is on disk when this returns.

        Raises: Refusal when the ledger can't be written.
        """
        done = asyncio.get_running_loop().create_future()
        self._entries.put(_Entry(_row(call, self._worker), False, call.classes, done))
        await asyncio.shield(_written(done))

    def close(self) -> None:
        """Write what is left."""
        self._entries.put(None)
        self._thread.join()

    def _write(self) -> None:
        while True:
            entries = [self._entries.get()]
            while len(entries) < MOST_AT_ONCE and entries[-1] is not None:
                try:
                    entries.append(self._entries.get_nowait())
                except queue.Empty:
                    break
            batch = [entry for entry in entries if entry is not None]
            if batch:
                self._write_batch(batch)
            if entries[-1] is None:
                return

    def _write_batch(self, batch: Sequence[_Entry]) -> None:
        outcomes: list[bool | SQLAlchemyError]
        try:
            with self._store.writing() as to:
                outcomes = [*_enter(to, batch)]
        except SQLAlchemyError as error:
            outcomes = [error] * len(batch)
        waiting = [(e.done, outcome) for e, outcome in zip(batch, outcomes, strict=True) if e.done is not None]
        if waiting:
            waiting[0][0].get_loop().call_soon_threadsafe(_tell, waiting)


def _enter(to: Connection, batch: Sequence[_Entry]) -> list[bool]:
    """Opened and settled in one batch, an entry is inserted once, as it ended."""
    inserted: dict[str, dict[str, Any]] = {}
    settled: list[dict[str, Any]] = []
    outcomes = []
    for entry in batch:
        row, allowed = entry.row, True
        if entry.opens:
            allowed = _reserve(to, row)
            if allowed:
                inserted[row["id"]] = row
        elif row["id"] in inserted:
            inserted[row["id"]] = row
            _pay(to, row["purses"], row["reserved"], row["price"])
        else:
            settled.append(row)
            counted = row["reserved"] if row["purses"] and _was_lost(to, row["id"]) else 0
            _pay(to, row["purses"], row["reserved"] - counted, row["price"] - counted)
        outcomes.append(allowed)
    if answered := [{"request_id": entry.row["id"], "classes": entry.classes} for entry in batch if entry.classes]:
        to.execute(insert(predictions), answered)
    if inserted:
        to.execute(insert(ledger), list(inserted.values()))
    if settled:
        values = [{"b_id": row["id"], **{name: row[name] for name in SETTLED}} for row in settled]
        changed: dict[str, Any] = {name: bindparam(name) for name in SETTLED}
        to.execute(update(ledger).where(ledger.c.id == bindparam("b_id")).values(changed), values)
    return outcomes


def _reserve(to: Connection, row: dict[str, Any]) -> bool:
    """Take the reserve from every purse, or from none."""
    paid: list[str] = []
    for owner in row["purses"]:
        left = purses.c.budget - purses.c.spent - purses.c.reserved
        take = update(purses).where(purses.c.owner == owner, left >= row["reserved"], left > 0)
        if not to.execute(take.values(reserved=purses.c.reserved + row["reserved"])).rowcount:
            _pay(to, paid, row["reserved"], 0)
            return False
        paid.append(owner)
    return True


def _was_lost(to: Connection, id_: str) -> bool:
    """Its gateway was taken for dead, though it only slept: the reserve counts as spent already."""
    return to.execute(select(ledger.c.state).where(ledger.c.id == id_)).scalar() == LOST


def _pay(to: Connection, owners: Sequence[str], reserved: int, price: int) -> None:
    for owner in owners:
        values = {"reserved": purses.c.reserved - reserved, "spent": purses.c.spent + price}
        to.execute(update(purses).where(purses.c.owner == owner).values(values))


def close_lost(store: Store) -> int:
    """Settle the calls of workers that died under them: what was reserved counts as spent. Gives how many."""
    with store.writing() as to:
        living = select(workers.c.id).where(workers.c.seen > now() - LIVES)
        lost = ledger.c.state == OPEN, ledger.c.worker.not_in(living)
        rows = to.execute(select(ledger.c.id, ledger.c.purses, ledger.c.reserved).where(*lost)).all()
        for id_, owners, reserved in rows:
            _pay(to, owners, reserved, reserved)
            to.execute(update(ledger).where(ledger.c.id == id_).values(state=LOST, price=reserved))
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
        "purses": list(call.key.purses),
        "reserved": call.reserved,
        **{name: getattr(call, name) for name in SETTLED},
    }


async def _written(done: asyncio.Future[bool]) -> bool:
    try:
        return await done
    except SQLAlchemyError as error:
        raise Refusal(503, "The ledger can't be written, so nothing is answered.", wait=5) from error


def _tell(waiting: Sequence[tuple[asyncio.Future[bool], bool | SQLAlchemyError]]) -> None:
    for future, outcome in waiting:
        if future.done():
            continue
        tell: Callable[[Any], None] = future.set_exception if isinstance(outcome, Exception) else future.set_result
        tell(outcome)
