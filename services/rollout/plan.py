"""Plans of rollouts: each step advances or rolls back on what usage records and feedback show."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, case, func, insert, select, update

from services.rollout.config import Plan, Step
from services.rollout.routing import CANARY, SHADOW
from services.rollout.shares import Change, ShareSpec, champion_of, delete_share, set_champion, write_share
from services.store.alerts import add_alert
from services.store.audit import record_audit_event
from services.store.database import DONE, FAILED, LOST, Store, now, plans, usage_records
from services.store.feedback import acceptance
from tasks.core.actor import Actor, process
from tasks.core.events import alert_event
from tasks.statistics.confidence_sequence import BinomialSequence

GATEWAY = process("gateway")  # decides on plans
MEASURES = ("failed", "slow", "disliked")


@dataclass(frozen=True)
class StepDecision:
    """The decision on a step (back, on or wait) and its reason."""

    action: str
    reason: str


def begin_plan(store: Store, name: str, digest: str, plan: Plan) -> None:
    """Start the plan of a running release; it replaces the current plan of the case.

    Raises: InputError when the case has no champion yet, or the release is the champion.
    """
    with store.changing() as connection:
        running = connection.execute(select(plans.c.digest).where(plans.c.case == name)).scalars().all()
        if running == [digest]:
            return  # by an earlier attempt of this run
        for old in running:
            delete_share(connection, name, old, Change("stop", f"replaced by {digest[:12]}"))
        _set_step(connection, name, digest, plan.steps[0], "its plan begins")
        at = {"step": 0, "started_at": now(), "step_started_at": now()}
        values = plan.model_dump(mode="json")
        connection.execute(insert(plans).values(case=name, digest=digest, plan=values, **at))
        record_audit_event(connection, "plan.begin", digest, case=name, plan=values)


def advance_plans(store: Store) -> dict[str, str]:
    """Decide on every plan's step; of several gateways, the first to write decides.

    Returns the errors by case; a plan that fails does not affect the others.
    Raises: SQLAlchemyError when the store does not answer.
    """
    errors: dict[str, str] = {}
    with store.reading() as connection:
        running = connection.execute(select(plans)).mappings().all()
    for row in running:
        try:
            with store.reading() as connection:
                decision = _judge(connection, row)
            if decision.action != "wait":
                with store.changing() as connection:
                    _decide(connection, row, decision)
        except Exception as error:  # any error; the plans of other cases must go on
            logging.getLogger("driftline").warning("The rollout of %s can't be decided.", row["case"], exc_info=True)
            errors[row["case"]] = f"{type(error).__name__}: {error}"[:300]
    return errors


def plan_progress(store: Store, name: str) -> list[str]:
    """A sentence for each running plan of a case: its step, and what it waits for."""
    with store.reading() as connection:
        rows = connection.execute(select(plans).where(plans.c.case == name)).mappings().all()
        return [
            f"plan of {row['digest'][:12]}, step {row['step'] + 1} of {len(row['plan']['steps'])}: "
            + _judge(connection, row).reason
            for row in rows
        ]


def decide_step(
    plan: Plan, step: int, calls: int, canary: Mapping[str, BinomialSequence], champion: Mapping[str, BinomialSequence]
) -> StepDecision:
    """Back when the canary is certainly worse than the champion or a limit; on when certainly within the limits."""
    alpha = plan.alpha / (2 * len(MEASURES))  # all intervals of a plan hold at once
    unsure: list[str] = []
    needed = [plan.steps[step].requests]
    for measure in MEASURES:
        low, high = canary[measure].interval(alpha)
        _, beside = champion[measure].interval(alpha)
        most, found = getattr(plan, measure), f"{canary[measure].hits} of {canary[measure].of} calls {measure}"
        if low > most:
            return StepDecision("back", f"{found}: more than the {most:.0%} allowed")
        if champion[measure].of and low > beside:
            return StepDecision(
                "back", f"{found}, of the champion's {champion[measure].hits} of {champion[measure].of}"
            )
        if canary[measure].of and high > most and measure != "disliked":  # feedback may never arrive
            unsure.append(measure)
            needed.append(canary[measure].trials_needed(most, alpha) or 0)
    if calls < plan.steps[step].requests or unsure:
        unsure_of = f"; too few to decide on: {', '.join(unsure)}" if unsure else ""
        return StepDecision("wait", f"{calls} calls{unsure_of}; about {max(needed):,} are needed if that stays so")
    shown = ", ".join(f"{canary[m].hits} of {canary[m].of} {m}" for m in MEASURES)
    return StepDecision("on", f"{calls} calls: {shown}")


def _judge(connection: Connection, row: RowMapping) -> StepDecision:
    plan, name = Plan.model_validate(row["plan"]), row["case"]
    champion = champion_of(connection, name)
    calls = select(func.count()).where(
        usage_records.c.case == name,
        usage_records.c.digest == row["digest"],
        usage_records.c.at >= row["step_started_at"],
        _counts(),
    )
    measured = (
        _measured(connection, name, digest, row["started_at"], plan.slow_s)
        for digest in (row["digest"], champion or "")
    )
    return decide_step(plan, row["step"], connection.execute(calls).scalar_one(), *measured)


def _measured(
    connection: Connection, name: str, digest: str, began: float, slow_s: float
) -> dict[str, BinomialSequence]:
    calls = usage_records.c.case == name, usage_records.c.digest == digest, usage_records.c.at >= began, _counts()
    failed = func.sum(case((usage_records.c.state != DONE, 1), else_=0))
    slow = func.sum(case(((usage_records.c.state == DONE) & (usage_records.c.seconds > slow_s), 1), else_=0))
    total, bad, late = connection.execute(select(func.count(), failed, slow).where(*calls)).one()
    accepted = acceptance(connection, *calls).values()
    return {
        "failed": BinomialSequence(int(bad or 0), total),
        "slow": BinomialSequence(int(late or 0), total - int(bad or 0)),
        "disliked": BinomialSequence(len(accepted) - sum(accepted), len(accepted)),
    }


def _counts() -> Any:
    """Calls that count: without those refused, aborted or answered from the cache."""
    return usage_records.c.state.in_((DONE, FAILED, LOST))


def _decide(connection: Connection, row: RowMapping, decision: StepDecision) -> None:
    name, digest, step, plan = row["case"], row["digest"], row["step"], Plan.model_validate(row["plan"])
    current = plans.c.case == name, plans.c.digest == digest, plans.c.step == step
    if not connection.execute(update(plans).where(*current).values(step=step + 1, step_started_at=now())).rowcount:
        return  # another gateway was first
    if decision.action == "back":
        delete_share(connection, name, digest, Change("rolled back", decision.reason, GATEWAY))
        _alert(connection, name, digest, decision.reason)
    elif step + 1 == len(plan.steps):
        set_champion(connection, name, digest, Change("promote", decision.reason, GATEWAY))
    else:
        _set_step(connection, name, digest, plan.steps[step + 1], decision.reason, GATEWAY)
        details = {"step": step + 1, "reason": decision.reason}
        record_audit_event(connection, "plan.advance", digest, case=name, actor=GATEWAY, **details)


def _alert(connection: Connection, name: str, digest: str, reason: str) -> None:
    subject = f"{name}: release {digest:.12} was rolled back"
    body = f"{reason}. The champion answers all requests again.\nDetails: driftline rollout {name}"
    add_alert(connection, alert_event(name, f"rollback {digest:.12}", subject, body))


def _set_step(
    connection: Connection, name: str, digest: str, step: Step, reason: str, actor: Actor | None = None
) -> None:
    share = ShareSpec(digest, CANARY if step.percent else SHADOW, step.percent or 100.0)
    write_share(connection, name, share, Change(share.role, reason, actor))
