"""Writes a batch of usage records in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, insert, update

from services.gateway.budgets import ALLOWED, reserve_budget, settle_budgets
from services.store.database import FAILED, REFUSED, USAGE_COLUMNS, predictions, usage_records
from services.store.prepared import execute_prepared

OPEN_RECORD, TOP_UP, SETTLE = "opens", "tops up", "settles"
NUMBERS = ("status", "retries", *USAGE_COLUMNS)
SETTLED = ("state", *NUMBERS, "retrieval", "guard")
MAX_INTEGER = 2**31 - 1  # of the Integer columns

_INSERT_CLASSES, _INSERT = insert(predictions), insert(usage_records)
_UPDATE = (
    update(usage_records)
    .where(usage_records.c.id == bindparam("b_id"))
    .values({name: bindparam(name) for name in SETTLED})
)


@dataclass
class UsageRecord:
    """One step of a call. `amount` is what a top-up adds, in billionths."""

    row: dict[str, Any]
    kind: str
    classes: dict[str, int | str] = field(default_factory=dict)  # of a tabular response
    done: asyncio.Future[str] | None = None  # gets ALLOWED, RESERVED or SPENT
    amount: int = 0


@dataclass
class OpenCalls:
    """What the writing thread knows of open calls, by their id."""

    topped: dict[str, int] = field(default_factory=dict)  # reserved beyond their rows' amount
    unopened: set[str] = field(default_factory=set)  # their first record could not be written

    def copy(self) -> OpenCalls:
        return OpenCalls(dict(self.topped), set(self.unopened))


def write_records(connection: Connection, batch: Sequence[UsageRecord], open_calls: OpenCalls) -> list[str]:
    """Write a batch; return the budgets' outcome for each record. The records stay unchanged, for a retry.

    A call that is opened and settled in one batch is inserted once, as settled.
    """
    inserted: dict[str, dict[str, Any]] = {}
    settled: list[dict[str, Any]] = []
    outcomes: list[str] = []
    for record in batch:
        row, outcome = record.row, ALLOWED
        if record.kind == OPEN_RECORD:
            outcome = reserve_budget(connection, row["budgets"], row["reserved"])
            if outcome == ALLOWED:
                inserted[row["id"]] = row
                open_calls.unopened.discard(row["id"])
        elif record.kind == TOP_UP:
            outcome = _top_up(connection, record, inserted, open_calls)
        else:
            row = {**row, "reserved": row["reserved"] + open_calls.topped.pop(row["id"], 0)}
            unopened = not row["budgets"] or row["id"] in inserted or row["id"] in open_calls.unopened
            opened_earlier = not unopened
            settle_budgets(connection, row, opened_earlier)
            if opened_earlier:
                settled.append(row)
            else:
                inserted[row["id"]] = row
                open_calls.unopened.discard(row["id"])
        outcomes.append(outcome)
    _write_rows(connection, batch, list(inserted.values()), settled)
    return outcomes


def _top_up(
    connection: Connection, record: UsageRecord, inserted: dict[str, dict[str, Any]], open_calls: OpenCalls
) -> str:
    """Reserve more for an open call, in its row too: that is its price if this process dies."""
    outcome, id_ = reserve_budget(connection, record.row["budgets"], record.amount), record.row["id"]
    if outcome == ALLOWED:
        open_calls.topped[id_] = open_calls.topped.get(id_, 0) + record.amount
        total = record.row["reserved"] + open_calls.topped[id_]
        if id_ in inserted:
            inserted[id_] = {**inserted[id_], "reserved": total}
        else:
            connection.execute(update(usage_records).where(usage_records.c.id == id_).values(reserved=total))
    return outcome


def _write_rows(
    connection: Connection, batch: Sequence[UsageRecord], inserted: list[dict[str, Any]], settled: list[dict[str, Any]]
) -> None:
    if answered := [{"request_id": record.row["id"], "classes": record.classes} for record in batch if record.classes]:
        execute_prepared(connection, _INSERT_CLASSES, *answered)
    if inserted:
        execute_prepared(connection, _INSERT, *inserted)
    if settled:
        values = [{"b_id": row["id"], **{name: row[name] for name in SETTLED}} for row in settled]
        execute_prepared(connection, _UPDATE, *values)


def encodable(record: UsageRecord) -> UsageRecord:
    """A record with valid texts and numbers and without classes, for a store that rejected the original."""
    row: dict[str, Any] = {
        name: _encodable(value) if isinstance(value, str) else value for name, value in record.row.items()
    }
    for name in NUMBERS:
        value: Any = record.row[name]
        row[name] = value if isinstance(value, int | float) and 0 <= value <= MAX_INTEGER else 0  # NaN is not
    return UsageRecord(row, record.kind, {}, record.done, record.amount)


def _encodable(value: Any) -> Any:
    """A text without lone surrogates, which can't be encoded, and NUL, which Postgres rejects."""
    return value.encode(errors="replace").decode().replace("\0", "") if isinstance(value, str) else value


def without_budgets(record: UsageRecord) -> UsageRecord:
    """The record of a call that could not be settled: its client got an error, so it is free."""
    row = dict(record.row)
    if row["state"] != REFUSED:
        row.update(state=FAILED, status=503)
    row.update(price=0, saved=0)
    return UsageRecord(row, record.kind, record.classes)
