"""Audit events: who decided what and when, written in the decision's own transaction, chained and never changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Select, insert, select

from services.store.audit_chain import GENESIS, canonical_record, record_digest
from services.store.database import Store, now
from services.store.database import audit_events as table
from tasks.core.actor import Actor, ActorKind, current_actor
from tasks.core.config import Result

COLUMNS = ("id", "at", "actor_kind", "actor", "action", "case", "subject")  # copies of the record, to search by
BATCH = 20_000  # records in memory


class AuditEvent(Result):
    """One decision."""

    id: int
    at: datetime
    actor_kind: ActorKind
    actor: str  # a person's or a process's name
    action: str  # noun.verb, such as key.create
    case: str  # empty: it concerns no single case
    subject: str  # what the action changed: a release's digest, a key's id, a team
    details: dict[str, Any]
    digest: str  # of the record

    @property
    def by(self) -> str:
        """The actor, with its kind unless it is a person."""
        return Actor(self.actor_kind, self.actor).label


def record_audit_event(
    connection: Connection, action: str, subject: str, *, case: str = "", actor: Actor | None = None, **details: Any
) -> None:
    """Append an event to the chain, in the transaction that makes the decision; the default is the current actor.

    Writers run one after the other. If two did not, the key of the second record would exist already, and its
    transaction would fail: the chain never forks.
    """
    who = actor or current_actor()
    last = connection.execute(select(table.c.id, table.c.digest).order_by(table.c.id.desc()).limit(1)).first()
    number, previous = (last.id + 1, last.digest) if last else (1, GENESIS)
    name = who.name[: table.c.actor.type.length]  # type: ignore[attr-defined]
    row = {"id": number, "at": now(), "actor_kind": who.kind, "actor": name, "action": action}
    row |= {"case": case, "subject": subject}
    record = canonical_record({**row, "details": details, "previous": previous})
    copies = {name: json.loads(record)[name] for name in COLUMNS}
    connection.execute(insert(table).values(copies | {"record": record, "digest": record_digest(record)}))


def audit_events(
    store: Store, case: str | None = None, since: datetime | None = None, *actions: str
) -> list[AuditEvent]:
    """The events of a case, or of all cases, from a moment on, oldest first; of these actions if some are named."""
    return _read(store, _filtered(case, since, actions).order_by(table.c.id))


def latest_audit_events(store: Store, count: int, case: str | None, since: datetime | None) -> list[AuditEvent]:
    """The last events, oldest first."""
    return _read(store, _filtered(case, since, ()).order_by(table.c.id.desc()).limit(count))[::-1]


def chain_entries(store: Store) -> Iterator[tuple[int, str, str, str]]:
    """Number, case, digest and text of every record, in order, a part of them in memory at a time."""
    query, last = select(table.c.id, table.c.case, table.c.digest, table.c.record).order_by(table.c.id), 0
    while True:
        with store.reading() as connection:
            rows = connection.execute(query.where(table.c.id > last).limit(BATCH)).all()
        yield from (tuple(row) for row in rows)
        if len(rows) < BATCH:
            return
        last = rows[-1].id


def _filtered(case: str | None, since: datetime | None, actions: tuple[str, ...]) -> Select[Any]:
    query = select(table.c.record, table.c.digest)
    if case is not None:
        query = query.where(table.c.case == case)
    if since is not None:
        query = query.where(table.c.at >= since.timestamp())
    return query.where(table.c.action.in_(actions)) if actions else query


def _read(store: Store, query: Select[Any]) -> list[AuditEvent]:
    with store.reading() as connection:
        return [_event(row) for row in connection.execute(query).mappings()]


def _event(row: Mapping[Any, Any]) -> AuditEvent:
    record = json.loads(row["record"])
    at = datetime.fromtimestamp(record["at"], UTC)
    return AuditEvent(digest=row["digest"], at=at, **{k: record[k] for k in record if k not in ("at", "previous")})
