"""What one transaction writes of many calls' entries in the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, insert, update

from services.gateway.budgets import ALLOWED, reserve, settle
from services.store.database import FAILED, REFUSED, USAGE_COLUMNS, predictions, usage_records

OPENS, TOPS_UP, SETTLES = "opens", "tops up", "settles"
SETTLED = ("state", "status", "retries", *USAGE_COLUMNS)
LARGEST = 2**31 - 1  # of the whole numbers in the ledger's Integer columns


@dataclass
class UsageRecord:
    """One step of a call. `amount` is what a top-up adds, in billionths."""

    row: dict[str, Any]
    kind: str
    classes: dict[str, int | str] = field(default_factory=dict)  # of a table's answer
    done: asyncio.Future[str] | None = None  # gets ALLOWED, RESERVED or SPENT
    amount: int = 0


@dataclass
class BudgetDays:
    """What the writing thread remembers of calls under way, by their id."""

    topped: dict[str, int] = field(default_factory=dict)  # reserved beyond what their rows say
    unopened: set[str] = field(default_factory=set)  # their opening could not be written

    def copy(self) -> BudgetDays:
        return BudgetDays(dict(self.topped), set(self.unopened))


def write_records(to: Connection, batch: Sequence[UsageRecord], memo: BudgetDays) -> list[str]:
    """Write a batch; return what the budgets said to each entry. The entries stay as they are, for another try.

    Opened and settled in one batch, an entry is inserted once, as it ended.
    """
    inserted: dict[str, dict[str, Any]] = {}
    settled: list[dict[str, Any]] = []
    outcomes: list[str] = []
    for entry in batch:
        row, outcome = entry.row, ALLOWED
        if entry.kind == OPENS:
            outcome = reserve(to, row["budgets"], row["reserved"])
            if outcome == ALLOWED:
                inserted[row["id"]] = row
                memo.unopened.discard(row["id"])
        elif entry.kind == TOPS_UP:
            outcome = _top_up(to, entry, inserted, memo)
        else:
            row = {**row, "reserved": row["reserved"] + memo.topped.pop(row["id"], 0)}
            opened_earlier = row["id"] not in inserted and row["id"] not in memo.unopened
            settle(to, row, opened_earlier)
            if opened_earlier:
                settled.append(row)
            else:
                inserted[row["id"]] = row
                memo.unopened.discard(row["id"])
        outcomes.append(outcome)
    _write_rows(to, batch, list(inserted.values()), settled)
    return outcomes


def _top_up(to: Connection, entry: UsageRecord, inserted: dict[str, dict[str, Any]], memo: BudgetDays) -> str:
    """Reserve more for a call under way, in its row too: its price, should this process die under it."""
    outcome, id_ = reserve(to, entry.row["budgets"], entry.amount), entry.row["id"]
    if outcome == ALLOWED:
        memo.topped[id_] = memo.topped.get(id_, 0) + entry.amount
        total = entry.row["reserved"] + memo.topped[id_]
        if id_ in inserted:
            inserted[id_] = {**inserted[id_], "reserved": total}
        else:
            to.execute(update(usage_records).where(usage_records.c.id == id_).values(reserved=total))
    return outcome


def _write_rows(
    to: Connection, batch: Sequence[UsageRecord], inserted: list[dict[str, Any]], settled: list[dict[str, Any]]
) -> None:
    if answered := [{"request_id": entry.row["id"], "classes": entry.classes} for entry in batch if entry.classes]:
        to.execute(insert(predictions), answered)
    if inserted:
        to.execute(insert(usage_records), inserted)
    if settled:
        values = [{"b_id": row["id"], **{name: row[name] for name in SETTLED}} for row in settled]
        changed: dict[str, Any] = {name: bindparam(name) for name in SETTLED}
        to.execute(update(usage_records).where(usage_records.c.id == bindparam("b_id")).values(changed), values)


def encodable(entry: UsageRecord) -> UsageRecord:
    """An entry whose texts and numbers fit and whose classes are left out, for a store that refuses it as it is."""
    row: dict[str, Any] = {
        name: _encodable(value) if isinstance(value, str) else value for name, value in entry.row.items()
    }
    for name in SETTLED[1:]:
        value: Any = entry.row[name]
        row[name] = value if isinstance(value, int | float) and 0 <= value <= LARGEST else 0  # NaN is not
    return UsageRecord(row, entry.kind, {}, entry.done, entry.amount)


def _encodable(value: Any) -> Any:
    """A text without lone surrogates, which have no bytes, and NUL, which Postgres does not take; else the value."""
    return value.encode(errors="replace").decode().replace("\0", "") if isinstance(value, str) else value


def without_budgets(entry: UsageRecord) -> UsageRecord:
    """The entry of a call that we could not settle, so that its client got an error: it costs nobody anything."""
    row = dict(entry.row)
    if row["state"] != REFUSED:
        row.update(state=FAILED, status=503)
    row.update(price=0, saved=0)
    return UsageRecord(row, entry.kind, entry.classes)
