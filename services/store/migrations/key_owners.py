"""Add the owner and the creator of a key."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, String

revision = "key_owners"
down_revision = "initial"


def upgrade() -> None:
    """Existing keys have no owner: they stay valid, and can't approve releases."""
    for name in ("owner", "created_by"):
        op.add_column("keys", Column(name, String(120), nullable=False, server_default=""))
