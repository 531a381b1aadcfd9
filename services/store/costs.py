"""Costs of calls and training, summed over the usage records."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from typing import Any

from sqlalchemy import Connection, Label, case, func, select

from services.store.database import ABORTED, CACHED, FAILED, LOST, Store, feedback, now, usage_records
from services.store.feedback import acceptance
from services.store.training import EVALUATION, TRAINING
from tasks.release.config import NANO

SUMS = ("tokens_in", "tokens_out", "engine_seconds", "price", "saved")


def summarize_costs(store: Store, by: str) -> list[dict[str, Any]]:
    """Sums by team, case, release or day (UTC); money in the budgets' currency.

    `spent` includes training and evaluation. `per_accepted` is the cost of the calls with feedback, divided by the
    number of accepted answers; None without any. `energy_wh` is the measured energy of training on GPUs; None if none
    was measured.
    """
    group = usage_records.c[{"release": "digest"}.get(by, by)].label("group")
    trained, evaluated = (usage_records.c.interface == name for name in (TRAINING, EVALUATION))
    query = select(
        group,
        _sum(~trained & ~evaluated).label("calls"),
        _sum(usage_records.c.state.in_((FAILED, ABORTED, LOST))).label("failed"),
        _sum(usage_records.c.state == CACHED).label("cached"),
        _sum(trained, usage_records.c.price).label("training"),
        _sum(evaluated, usage_records.c.price).label("evaluation"),
        *(func.sum(usage_records.c[name]).label(name) for name in (*SUMS, "energy_wh")),
    )
    with store.reading() as connection:
        rows = connection.execute(query.group_by(group).order_by(group)).mappings().all()
        judged, accepted, paid = _accepted(connection, group)
    return [
        {
            by: _day(row["group"]) if by == "day" else row["group"],
            **{name: int(row[name]) for name in ("calls", "failed", "cached", "tokens_in", "tokens_out")},
            "engine_seconds": float(row["engine_seconds"]),
            "energy_wh": row["energy_wh"],
            "spent": float(row["price"]) / NANO,
            "training": float(row["training"]) / NANO,
            "evaluation": float(row["evaluation"]) / NANO,
            "saved": float(row["saved"]) / NANO,
            "judged": judged[row["group"]],
            "accepted": accepted[row["group"]],
            "per_accepted": paid[row["group"]] / NANO / accepted[row["group"]] if accepted[row["group"]] else None,
        }
        for row in rows
    ]


def usage_today(store: Store) -> dict[str, dict[str, Any]]:
    """Calls, failed calls and costs since midnight UTC, by case."""
    failed = _sum(usage_records.c.state.in_((FAILED, ABORTED, LOST)))
    sums = _sum(usage_records.c.interface.not_in((TRAINING, EVALUATION))), failed, func.sum(usage_records.c.price)
    query = (
        select(usage_records.c.case, *sums)
        .where(usage_records.c.day == int(now() // 86_400))
        .group_by(usage_records.c.case)
    )
    with store.reading() as connection:
        rows = connection.execute(query).all()
    return {
        name: {"calls": int(calls), "failed": int(bad), "spent": float(spent) / NANO}
        for name, calls, bad, spent in rows
    }


def _sum(where: Any, value: Any = 1) -> Any:
    return func.sum(case((where, value), else_=0))


def _accepted(connection: Connection, group: Label[Any]) -> tuple[Counter[Any], Counter[Any], Counter[Any]]:
    """By group: answers with feedback, accepted answers, and the cost of the calls with feedback."""
    about = select(usage_records.c.id, group, usage_records.c.price).where(
        usage_records.c.id.in_(select(feedback.c.request_id))
    )
    calls = {id_: (key, price) for id_, key, price in connection.execute(about)}
    opinions = {row: liked for row, liked in acceptance(connection).items() if row[0] in calls}
    judged = Counter(calls[id_][0] for id_, _ in opinions)
    accepted = Counter(calls[id_][0] for (id_, _), liked in opinions.items() if liked)
    paid: Counter[Any] = Counter()
    for key, price in (calls[id_] for id_ in {id_ for id_, _ in opinions}):
        paid[key] += price
    return judged, accepted, paid


def _day(number: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=number)).isoformat()
