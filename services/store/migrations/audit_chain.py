"""Chain the audit events: each becomes a canonical record with the digest of the one before it."""

from __future__ import annotations

import json

from alembic import op
from sqlalchemy import Column, String, Text, text

from services.store.audit_chain import GENESIS, canonical_record, record_digest
from services.store.migrations.audit_events import SQLITE

revision = "audit_chain"
down_revision = "guardrails"

READ = text('SELECT id, at, actor, action, "case", subject, details FROM audit_events ORDER BY id')
WRITE = text("UPDATE audit_events SET id = :number, record = :record, digest = :digest WHERE id = :id")


def upgrade() -> None:
    """Existing events are numbered without gaps; whether a person or a machine acted was not recorded."""
    is_postgres = op.get_bind().dialect.name == "postgresql"
    triggers = "DISABLE TRIGGER audit_events_append_only"
    if is_postgres:
        op.execute(f"ALTER TABLE audit_events {triggers}")
    else:
        for event in ("update", "delete"):
            op.execute(f"DROP TRIGGER audit_events_no_{event}")
    op.add_column("audit_events", Column("actor_kind", String(10), nullable=False, server_default="unknown"))
    for name, kind in (("record", Text()), ("digest", String(64))):
        op.add_column("audit_events", Column(name, kind, nullable=False, server_default=""))
    _chain()
    op.drop_column("audit_events", "details")
    if is_postgres:
        op.execute(f"ALTER TABLE audit_events {triggers.replace('DISABLE', 'ENABLE')}")
    else:
        for event in ("update", "delete"):
            op.execute(SQLITE.format(event))


def _chain() -> None:
    connection, previous = op.get_bind(), GENESIS
    for number, row in enumerate(connection.execute(READ).mappings().all(), 1):
        details = json.loads(row["details"]) if isinstance(row["details"], str) else row["details"]
        event = {**row, "id": number, "details": details, "actor_kind": "unknown", "previous": previous}
        record = canonical_record(event)
        previous = record_digest(record)
        values = {"id": row["id"], "number": number, "record": record, "digest": previous}
        connection.execute(WRITE, values)
