"""Rename tables and columns to standard terms."""

from __future__ import annotations

from alembic import op

revision = "standard_terms"
down_revision = "key_owners"

# `version` first: each transaction of a gateway locks it first, so on Postgres there is no deadlock
TABLES = {
    "version": "config_version",
    "ledger": "usage_records",
    "purses": "budgets",
    "moves": "rollout_events",
    "pushes": "webhook_deliveries",
    "alerts": "alert_outbox",
}
COLUMNS = {
    "config_version": {"number": "version", "only": "id"},
    "usage_records": {"purses": "budgets"},
    "budgets": {"budget": "amount"},
    "rollout_events": {"number": "id", "what": "action", "why": "reason"},
    "webhook_deliveries": {
        "delivery": "delivery_id",
        "body": "body_digest",
        "at": "received_at",
        "push": "payload",
        "delivered_at": "forwarded_at",
    },
    "feedback": {"number": "id", "said": "payload"},
    "approvals": {
        "asked_by": "requested_by",
        "asked_at": "requested_at",
        "shown": "evidence_summary",
        "who": "decided_by",
        "via": "channel",
        "why": "reason",
    },
    "plans": {"began": "started_at", "since": "step_started_at"},
    "releases": {"facts": "metadata"},
    "workers": {"seen": "last_seen"},
}
INDEXES = {  # SQLite can't rename an index
    "ledger_by_case": ("usage_records_by_case", "usage_records", ["case", "digest", "at"]),
    "ledger_by_state": ("usage_records_by_state", "usage_records", ["state"]),
    "ix_pushes_delivered_at": ("ix_webhook_deliveries_forwarded_at", "webhook_deliveries", ["forwarded_at"]),
}
POSTGRES_NAMES = {  # of constraints and sequences; SQLite has no such names
    **{f"INDEX {old}_pkey": f"{new}_pkey" for old, new in TABLES.items()},
    "INDEX pushes_body_key": "webhook_deliveries_body_digest_key",
    "SEQUENCE version_only_seq": "config_version_id_seq",
    "SEQUENCE moves_number_seq": "rollout_events_id_seq",
    "SEQUENCE feedback_number_seq": "feedback_id_seq",
}


def upgrade() -> None:
    """Rename without copying; all rows stay unchanged."""
    for old, new in TABLES.items():
        op.rename_table(old, new)
    for table, columns in COLUMNS.items():
        for old, new in columns.items():
            op.alter_column(table, old, new_column_name=new)
    for old, (new, table, indexed) in INDEXES.items():
        op.drop_index(old, table, if_exists=True)
        op.create_index(new, table, indexed)
    if op.get_bind().dialect.name == "postgresql":
        for old, new in POSTGRES_NAMES.items():
            kind, name = old.split()
            op.execute(f"ALTER {kind} IF EXISTS {name} RENAME TO {new}")
