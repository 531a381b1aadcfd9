"""Budgets within a transaction of the store: reserve before a call, top up during it, settle after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from services.store.database import LOST, budgets, usage_records
from services.store.prepared import execute_prepared

ALLOWED, RESERVED, SPENT = "allowed", "reserved", "spent"  # outcomes of a reservation

AVAILABLE = budgets.c.amount - budgets.c.spent - budgets.c.reserved
_OWNED = budgets.c.owner == bindparam("b_owner")
_RESERVE = (
    update(budgets)
    .where(_OWNED, bindparam("least") <= AVAILABLE, AVAILABLE > 0)
    .values(reserved=budgets.c.reserved + bindparam("more"))
)
_SETTLE = (
    update(budgets)
    .where(_OWNED)
    .values(reserved=budgets.c.reserved - bindparam("less"), spent=budgets.c.spent + bindparam("price"))
)
_UNSPENT = select(budgets.c.amount - budgets.c.spent).where(_OWNED)
_AVAILABLE = select(AVAILABLE).where(_OWNED)
_STATE = select(usage_records.c.state).where(usage_records.c.id == bindparam("b_id"))


def reserve_budget(connection: Connection, owners: Sequence[str], amount: int) -> str:
    """Reserve an amount (billionths) in every budget, or in none; return the outcome.

    RESERVED: there may be enough once running calls have ended. SPENT: there is not enough left.
    """
    taken: list[str] = []
    for owner in owners:
        values = {"b_owner": owner, "least": amount, "more": amount}
        if not execute_prepared(connection, _RESERVE, values).rowcount:
            unspent = execute_prepared(connection, _UNSPENT, {"b_owner": owner}).scalar()
            if unspent is None:
                continue  # this budget was removed in the meantime
            release_and_spend(connection, taken, amount, 0)
            return RESERVED if unspent >= max(amount, 1) else SPENT
        taken.append(owner)
    return ALLOWED


def release_and_spend(connection: Connection, owners: Sequence[str], reserved: int, price: int) -> None:
    """Release the reservation and spend the price."""
    for owner in owners:
        execute_prepared(connection, _SETTLE, {"b_owner": owner, "less": reserved, "price": price})


def settle_budgets(connection: Connection, row: dict[str, Any], opened_earlier: bool) -> None:
    """Charge a call that ended, also beyond its reservation, as far as its budgets allow.

    Otherwise `row["price"]` becomes what they paid: no budget is ever overspent.
    """
    owners, reserved = row["budgets"], row["reserved"]
    if not owners:
        return
    # the gateway was paused and counted as dead: its reservation is already spent
    counted = reserved if opened_earlier and _was_lost(connection, row["id"]) else 0
    if row["price"] > reserved:
        available = [execute_prepared(connection, _AVAILABLE, {"b_owner": owner}).scalar() for owner in owners]
        left = min((amount for amount in available if amount is not None), default=row["price"])
        row["price"] = reserved + min(row["price"] - reserved, max(0, left))
    release_and_spend(connection, owners, reserved - counted, row["price"] - counted)


def _was_lost(connection: Connection, id_: str) -> bool:
    return execute_prepared(connection, _STATE, {"b_id": id_}).scalar() == LOST
