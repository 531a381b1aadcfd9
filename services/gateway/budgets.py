"""Budgets within a transaction of the store: reserved before a call, topped up during it, settled after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select, update

from services.store.database import LOST, budgets, usage_records

ALLOWED, RESERVED, SPENT = "allowed", "reserved", "spent"  # what the budgets of a call say to an amount

LEFT = budgets.c.amount - budgets.c.spent - budgets.c.reserved


def reserve(to: Connection, owners: Sequence[str], amount: int) -> str:
    """Reserve an amount (billionths) in every budget, or in none; return ALLOWED, or why not.

    RESERVED: once the calls under way have ended there may be enough; SPENT: there won't be.
    """
    taken: list[str] = []
    for owner in owners:
        take = update(budgets).where(budgets.c.owner == owner, amount <= LEFT, LEFT > 0)
        if not to.execute(take.values(reserved=budgets.c.reserved + amount)).rowcount:
            unspent = to.execute(select(budgets.c.amount - budgets.c.spent).where(budgets.c.owner == owner)).scalar()
            if unspent is None:
                continue  # this budget was removed meanwhile
            pay(to, taken, amount, 0)
            return RESERVED if unspent >= max(amount, 1) else SPENT
        taken.append(owner)
    return ALLOWED


def pay(to: Connection, owners: Sequence[str], reserved: int, price: int) -> None:
    """Give back what was reserved, and spend the price."""
    for owner in owners:
        values = {"reserved": budgets.c.reserved - reserved, "spent": budgets.c.spent + price}
        to.execute(update(budgets).where(budgets.c.owner == owner).values(values))


def settle(to: Connection, row: dict[str, Any], opened_earlier: bool) -> None:
    """Pay for a call that ended, beyond its reserve too, as far as its budgets have something left.

    Where they have not, `row["price"]` becomes what they paid, and no budget is ever overspent.
    """
    owners, reserved = row["budgets"], row["reserved"]
    if not owners:
        return
    # a gateway taken for dead that only slept: the reserve counts as spent already
    counted = reserved if opened_earlier and _was_lost(to, row["id"]) else 0
    if row["price"] > reserved:
        left = min(to.execute(select(LEFT).where(budgets.c.owner.in_(owners))).scalars(), default=row["price"])
        row["price"] = reserved + min(row["price"] - reserved, max(0, left))
    pay(to, owners, reserved - counted, row["price"] - counted)


def _was_lost(to: Connection, id_: str) -> bool:
    return to.execute(select(usage_records.c.state).where(usage_records.c.id == id_)).scalar() == LOST
