"""Budgets within a transaction of the store: reserve before a call, top up during it, settle after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select, update

from services.store.database import LOST, budgets, usage_records

ALLOWED, RESERVED, SPENT = "allowed", "reserved", "spent"  # outcomes of a reservation

AVAILABLE = budgets.c.amount - budgets.c.spent - budgets.c.reserved


def reserve_budget(connection: Connection, owners: Sequence[str], amount: int) -> str:
    """Reserve an amount (billionths) in every budget, or in none; return the outcome.

    RESERVED: there may be enough once running calls have ended. SPENT: there is not enough left.
    """
    taken: list[str] = []
    for owner in owners:
        take = update(budgets).where(budgets.c.owner == owner, amount <= AVAILABLE, AVAILABLE > 0)
        if not connection.execute(take.values(reserved=budgets.c.reserved + amount)).rowcount:
            query = select(budgets.c.amount - budgets.c.spent).where(budgets.c.owner == owner)
            unspent = connection.execute(query).scalar()
            if unspent is None:
                continue  # this budget was removed in the meantime
            release_and_spend(connection, taken, amount, 0)
            return RESERVED if unspent >= max(amount, 1) else SPENT
        taken.append(owner)
    return ALLOWED


def release_and_spend(connection: Connection, owners: Sequence[str], reserved: int, price: int) -> None:
    """Release the reservation and spend the price."""
    for owner in owners:
        values = {"reserved": budgets.c.reserved - reserved, "spent": budgets.c.spent + price}
        connection.execute(update(budgets).where(budgets.c.owner == owner).values(values))


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
        query = select(AVAILABLE).where(budgets.c.owner.in_(owners))
        left = min(connection.execute(query).scalars(), default=row["price"])
        row["price"] = reserved + min(row["price"] - reserved, max(0, left))
    release_and_spend(connection, owners, reserved - counted, row["price"] - counted)


def _was_lost(connection: Connection, id_: str) -> bool:
    return connection.execute(select(usage_records.c.state).where(usage_records.c.id == id_)).scalar() == LOST
