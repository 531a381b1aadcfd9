"""Add what guardrails did to a call."""

from __future__ import annotations

from alembic import op
from sqlalchemy import JSON, Column

revision = "guardrails"
down_revision = "knowledge"


def upgrade() -> None:
    """Earlier calls passed no rules."""
    op.add_column("usage_records", Column("guard", JSON(none_as_null=True)))
