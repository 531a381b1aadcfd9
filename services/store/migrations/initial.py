"""The schema as it was when Alembic came: a new store gets it whole, an earlier one what it lacks of it."""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    insert,
    inspect,
    select,
)

revision = "initial"
down_revision = None

tables = MetaData()
releases = Table(  # every release that was ever served
    "releases",
    tables,
    Column("digest", String(64), primary_key=True),
    Column("case", String(64), nullable=False),
    Column("facts", JSON, nullable=False),
)
endpoints = Table(  # the processes that serve a release
    "endpoints",
    tables,
    Column("digest", String(64), primary_key=True),
    Column("address", String(200), primary_key=True),
)
shares = Table(  # rollouts: the share of each release in its case's traffic
    "shares",
    tables,
    Column("case", String(64), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("role", String(10), nullable=False),  # champion, canary, arm or shadow
    Column("percent", Double, nullable=False),  # of a champion: the remainder
    Column("arm", String(40), nullable=False),
)
plans = Table(  # rollouts that advance automatically
    "plans",
    tables,
    Column("case", String(64), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("plan", JSON, nullable=False),
    Column("step", Integer, nullable=False),
    Column("began", Double, nullable=False),
    Column("since", Double, nullable=False),  # of the step
)
moves = Table(  # the history of the rollouts
    "moves",
    tables,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("case", String(64), nullable=False),
    Column("at", Double, nullable=False),
    Column("what", String(20), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("champion", String(64), nullable=False),  # after it
    Column("why", Text, nullable=False),
)
keys = Table(
    "keys",
    tables,
    Column("id", String(16), primary_key=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("team", String(64), nullable=False),
    Column("roles", JSON, nullable=False),
    Column("rpm", Integer),
    Column("tpm", Integer),
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double),
)
teams = Table(
    "teams",
    tables,
    Column("team", String(64), primary_key=True),
    Column("rpm", Integer),
    Column("tpm", Integer),
)
purses = Table(  # what a key or a team may spend, has spent, and has promised to calls under way; in billionths
    "purses",
    tables,
    Column("owner", String(80), primary_key=True),
    Column("budget", BigInteger, nullable=False),
    Column("spent", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
)
ledger = Table(  # one row a call
    "ledger",
    tables,
    Column("id", String(40), primary_key=True),
    Column("at", Double, nullable=False),
    Column("day", Integer, nullable=False),  # days since 1970 in UTC
    Column("worker", String(40), nullable=False),
    Column("interface", String(20), nullable=False),
    Column("team", String(64), nullable=False),
    Column("key", String(16), nullable=False),
    Column("case", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("role", String(10), nullable=False),
    Column("purses", JSON, nullable=False),
    Column("reserved", BigInteger, nullable=False),
    Column("state", String(10), nullable=False),  # open, done, cached, refused, failed, aborted, lost
    Column("status", Integer, nullable=False),
    Column("retries", Integer, nullable=False),
    Column("tokens_in", Integer, nullable=False),
    Column("tokens_cached", Integer, nullable=False),
    Column("tokens_out", Integer, nullable=False),
    Column("engine_seconds", Double, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("price", BigInteger, nullable=False),
    Column("saved", BigInteger, nullable=False),
    Column("energy_wh", Double),  # of a training run, if it was measured
)
predictions = Table(  # predicted classes, to compare with labels that arrive later
    "predictions",
    tables,
    Column("request_id", String(40), primary_key=True),
    Column("classes", JSON, nullable=False),  # by example_id; empty for a single row without one
)
feedback = Table(
    "feedback",
    tables,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("request_id", String(40), nullable=False, index=True),
    Column("at", Double, nullable=False),
    Column("team", String(64), nullable=False),
    Column("key", String(16), nullable=False),
    Column("said", JSON, nullable=False),
)
pushes = Table(  # received git pushes; never deleted, so that none is handled twice
    "pushes",
    tables,
    Column("delivery", String(80), primary_key=True),  # the sender's id, which is not signed
    Column("body", String(64), nullable=False, unique=True),  # digest of the signed body
    Column("at", Double, nullable=False),
    Column("push", JSON, nullable=False),
    Column("delivered_at", Double, index=True),  # when it was sent to Prefect; empty: not yet
)
alerts = Table(  # events that wait to be sent to Prefect
    "alerts",
    tables,
    Column("id", String(36), primary_key=True),
    Column("at", Double, nullable=False),
    Column("event", JSON, nullable=False),
)
approvals = Table(  # requests for a person's approval, and the decisions
    "approvals",
    tables,
    Column("case", String(64), primary_key=True),
    Column("evidence", String(64), primary_key=True),
    Column("as_of", String(40), nullable=False),
    Column("asked_by", String(120), nullable=False),
    Column("asked_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("run", String(40), nullable=False),
    Column("shown", Text, nullable=False),
    Column("state", String(10), nullable=False),  # waiting, approved, rejected or lapsed
    Column("who", String(120), nullable=False),
    Column("via", String(20), nullable=False),
    Column("why", Text, nullable=False),
    Column("decided_at", Double),
)
workers = Table(  # the gateway's processes and their heartbeats
    "workers",
    tables,
    Column("id", String(40), primary_key=True),
    Column("seen", Double, nullable=False),
)
version = Table(  # one row; increased by each change of what gateways cache
    "version",
    tables,
    Column("only", Integer, primary_key=True),
    Column("number", Integer, nullable=False),
)
Index("ledger_by_case", ledger.c.case, ledger.c.digest, ledger.c.at)
Index("ledger_by_state", ledger.c.state)


def upgrade() -> None:
    """Create missing tables, and missing columns in the tables of earlier versions."""
    connection = op.get_bind()
    inspector = inspect(connection)
    existing = set(inspector.get_table_names())
    tables.create_all(connection)
    for table in tables.sorted_tables:
        if table.name in existing:
            columns = {column["name"] for column in inspector.get_columns(table.name)}
            for column in table.columns:
                if column.name not in columns:
                    op.add_column(table.name, Column(column.name, column.type, nullable=True))
    if connection.execute(select(version.c.only)).first() is None:
        connection.execute(insert(version).values(only=1, number=0))
