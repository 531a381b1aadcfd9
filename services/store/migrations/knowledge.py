"""Add the labels of a key, and what a call retrieved."""

from __future__ import annotations

from alembic import op
from sqlalchemy import JSON, Column

revision = "knowledge"
down_revision = "audit_events"


def upgrade() -> None:
    """Existing keys have no labels: they see passages without labels."""
    op.add_column("keys", Column("labels", JSON, nullable=False, server_default="[]"))
    op.add_column("usage_records", Column("retrieval", JSON(none_as_null=True)))
