"""What calls have cost, summed over the ledger."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from sqlalchemy import case, func, select

from tasks.gateway.call import ABORTED, CACHED, FAILED, LOST
from tasks.gateway.store import Store, ledger
from tasks.release.config import NANO


def costs(store: Store, by: str) -> list[dict[str, Any]]:
    """Sums by team, case, release or day (UTC); money in the budgets' currency."""
    of = ledger.c[{"release": "digest"}.get(by, by)].label("of")
    sums = [
        func.sum(ledger.c[name]).label(name) for name in ("tokens_in", "tokens_out", "engine_seconds", "price", "saved")
    ]
    failed = func.sum(case((ledger.c.state.in_((FAILED, ABORTED, LOST)), 1), else_=0)).label("failed")
    cached = func.sum(case((ledger.c.state == CACHED, 1), else_=0)).label("cached")
    query = select(of, func.count().label("calls"), failed, cached, *sums).group_by(of).order_by(of)
    with store.reading() as connection:
        rows = connection.execute(query).mappings().all()
    return [
        {
            by: _day(row["of"]) if by == "day" else row["of"],
            **{name: int(row[name]) for name in ("calls", "failed", "cached", "tokens_in", "tokens_out")},
            "engine_seconds": float(row["engine_seconds"]),
            "spent": float(row["price"]) / NANO,
            "saved": float(row["saved"]) / NANO,
        }
        for row in rows
    ]


def _day(number: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=number)).isoformat()
