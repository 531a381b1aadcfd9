"""A key has an owner, the person whose word it carries, and whoever created it."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, String

revision = "key_owners"
down_revision = "initial"


def upgrade() -> None:
    """Keys that are there belong to nobody known: they open what they did, and decide on no release."""
    for name in ("owner", "created_by"):
        op.add_column("keys", Column(name, String(120), nullable=False, server_default=""))
