"""Add the append-only table of audit events."""

from __future__ import annotations

from alembic import op
from sqlalchemy import JSON, Column, Double, Integer, String

revision = "audit_events"
down_revision = "standard_terms"

SQLITE = """
CREATE TRIGGER audit_events_no_{0} BEFORE {0} ON audit_events
BEGIN SELECT RAISE(ABORT, 'audit_events is append-only'); END
"""
POSTGRES_FUNCTION = """
CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'audit_events is append-only'; END $$
"""
POSTGRES_TRIGGER = """
CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()
"""


def upgrade() -> None:
    """Create the table, and triggers that prevent changes and deletions."""
    op.create_table(
        "audit_events",
        Column("id", Integer, primary_key=True, autoincrement=True),
        Column("at", Double, nullable=False),
        Column("actor", String(120), nullable=False),
        Column("action", String(40), nullable=False),
        Column("case", String(64), nullable=False),
        Column("subject", String(80), nullable=False),
        Column("details", JSON, nullable=False),
    )
    op.create_index("audit_events_by_case", "audit_events", ["case", "at"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute(POSTGRES_FUNCTION)
        op.execute(POSTGRES_TRIGGER)
    else:
        for event in ("update", "delete"):
            op.execute(SQLITE.format(event))
