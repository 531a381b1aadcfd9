"""Audit events: who decided what and when, written in the decision's own transaction and never changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from services.store.database import Store, now
from services.store.database import audit_events as table
from tasks.core.config import Result
from tasks.core.processes import current_user


class AuditEvent(Result):
    """One decision."""

    id: int
    at: datetime
    actor: str  # a person, or the process that decided automatically
    action: str  # noun.verb, such as key.create
    case: str  # empty: it concerns no single case
    subject: str  # what the action changed: a release's digest, a key's id, a team
    details: dict[str, Any]


def record_audit_event(
    connection: Connection, action: str, subject: str, *, case: str = "", actor: str | None = None, **details: Any
) -> None:
    """Add an event to the transaction that makes the decision; the actor defaults to this process's user."""
    who = (actor or current_user())[: table.c.actor.type.length]  # type: ignore[attr-defined]
    row = {"at": now(), "actor": who, "action": action, "case": case, "subject": subject, "details": details}
    connection.execute(insert(table).values(row))


def audit_events(store: Store, case: str | None = None, since: datetime | None = None) -> list[AuditEvent]:
    """The events of a case, or of all cases, from a moment on, oldest first."""
    query = select(table).order_by(table.c.id)
    if case is not None:
        query = query.where(table.c.case == case)
    if since is not None:
        query = query.where(table.c.at >= since.timestamp())
    with store.reading() as connection:
        rows = connection.execute(query).mappings().all()
    return [AuditEvent.model_validate({**row, "at": datetime.fromtimestamp(row["at"], UTC)}) for row in rows]
