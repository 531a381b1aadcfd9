"""The platform's tables, in SQLite or any database by URL: routes, keys, budgets, usage, feedback, approvals, audit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    make_url,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from services.store.migrate import migrate
from services.store.prepared import execute_prepared
from services.store.sqlite import prepare_sqlite, read_json
from tasks.core.errors import Unavailable
from tasks.core.files import disk_full_error, is_disk_full
from tasks.core.settings import Settings

# the states of a call; lost: its gateway was killed
OPEN, DONE, CACHED, REFUSED, FAILED, ABORTED, LOST = "open", "done", "cached", "refused", "failed", "aborted", "lost"
USAGE_COLUMNS = ("tokens_in", "tokens_cached", "tokens_out", "engine_seconds", "seconds", "price", "saved")
DAY = 86_400  # seconds

tables = MetaData()
releases = Table(  # every release that was ever served
    "releases",
    tables,
    Column("digest", String(64), primary_key=True),
    Column("case", String(64), nullable=False),
    Column("metadata", JSON, nullable=False),
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
    Column("started_at", Double, nullable=False),
    Column("step_started_at", Double, nullable=False),
)
rollout_events = Table(  # the history of the rollouts
    "rollout_events",
    tables,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("case", String(64), nullable=False),
    Column("at", Double, nullable=False),
    Column("action", String(20), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("champion", String(64), nullable=False),  # after the event
    Column("reason", Text, nullable=False),
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
    Column("owner", String(120), nullable=False, server_default=""),  # a person; empty: nobody
    Column("created_by", String(120), nullable=False, server_default=""),
    Column("labels", JSON, nullable=False, server_default="[]"),  # of the passages that it sees
)
teams = Table(
    "teams",
    tables,
    Column("team", String(64), primary_key=True),
    Column("rpm", Integer),
    Column("tpm", Integer),
)
budgets = Table(  # limit, spent and reserved amount of a key or a team, in billionths
    "budgets",
    tables,
    Column("owner", String(80), primary_key=True),
    Column("amount", BigInteger, nullable=False),
    Column("spent", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
)
usage_records = Table(  # one row for each call
    "usage_records",
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
    Column("budgets", JSON, nullable=False),
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
    Column("guard", JSON(none_as_null=True)),  # what guardrails did: outcomes by stage and rule
    Column("retrieval", JSON(none_as_null=True)),  # of a call with a knowledge base: passages, similarity, outcome
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
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("request_id", String(40), nullable=False, index=True),
    Column("at", Double, nullable=False),
    Column("team", String(64), nullable=False),
    Column("key", String(16), nullable=False),
    Column("payload", JSON, nullable=False),
)
webhook_deliveries = Table(  # received git pushes; never deleted, so that none is handled twice
    "webhook_deliveries",
    tables,
    Column("delivery_id", String(80), primary_key=True),  # the sender's id, which is not signed
    Column("body_digest", String(64), nullable=False, unique=True),  # digest of the signed body
    Column("received_at", Double, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("forwarded_at", Double, index=True),  # when it was sent to Prefect; empty: not yet
)
alert_outbox = Table(  # events that wait to be sent to Prefect
    "alert_outbox",
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
    Column("requested_by", String(120), nullable=False),
    Column("requested_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("run", String(40), nullable=False),
    Column("evidence_summary", Text, nullable=False),
    Column("state", String(10), nullable=False),  # waiting, approved, rejected or lapsed
    Column("decided_by", String(120), nullable=False),
    Column("channel", String(20), nullable=False),
    Column("reason", Text, nullable=False),
    Column("decided_at", Double),
)
audit_events = Table(  # decisions; triggers prevent changes and deletions
    "audit_events",
    tables,
    Column("id", Integer, primary_key=True, autoincrement=True),  # the record's number: 1, 2, 3, ...
    Column("at", Double, nullable=False),
    Column("actor", String(120), nullable=False),
    Column("action", String(40), nullable=False),
    Column("case", String(64), nullable=False),  # empty: no single case
    Column("subject", String(80), nullable=False),
    Column("actor_kind", String(10), nullable=False, server_default="unknown"),
    Column("record", Text, nullable=False, server_default=""),  # canonical JSON of the event; the columns are copies
    Column("digest", String(64), nullable=False, server_default=""),  # SHA-256 of the record
)
workers = Table(  # the gateway's processes and their heartbeats
    "workers",
    tables,
    Column("id", String(40), primary_key=True),
    Column("last_seen", Double, nullable=False),
)
config_version = Table(  # one row; increased by each change of what gateways cache
    "config_version",
    tables,
    Column("id", Integer, primary_key=True),
    Column("version", Integer, nullable=False),
)
_LOCK = select(config_version.c.id).with_for_update()
Index("usage_records_by_case", usage_records.c.case, usage_records.c.digest, usage_records.c.at)
Index("audit_events_by_case", audit_events.c.case, audit_events.c.at)
Index("usage_records_by_state", usage_records.c.state)


class Store:
    """A connection pool; tables are created or upgraded as needed.

    Raises: Unavailable when the database does not answer, or a newer version of Driftline wrote it.
    """

    def __init__(self, settings: Settings) -> None:
        url = make_url(settings.gateway_store or f"sqlite:///{settings.state / 'gateway' / 'gateway.db'}")
        self._embedded = url.get_backend_name() == "sqlite"
        waits: dict[str, Any] = {"connect_args": {"timeout": 30}} if self._embedded else {"pool_pre_ping": True}
        self.engine = create_engine(url, json_deserializer=read_json, **waits)
        if self._embedded:
            Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
            prepare_sqlite(self.engine)
        with database_errors(url.render_as_string()):
            migrate(self.engine)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One atomic transaction; transactions run one after the other.

        SQLite allows no other way. In other databases, the lock on one row prevents deadlocks of two gateways that
        write records of the same budgets.
        """
        with self.engine.begin() as connection:
            if not self._embedded:
                execute_prepared(connection, _LOCK)
            yield connection

    @contextmanager
    def changing(self) -> Iterator[Connection]:
        """A transaction that invalidates the caches of all gateways."""
        with self.writing() as connection:
            yield connection
            connection.execute(update(config_version).values(version=config_version.c.version + 1))

    def config_version(self) -> int:
        with self.reading() as connection:
            return int(connection.execute(select(config_version.c.version)).scalar_one())

    def close(self) -> None:
        self.engine.dispose()


@contextmanager
def database_errors(where: str) -> Iterator[None]:
    """Raises: Unavailable for each error of the database."""
    try:
        yield
    except SQLAlchemyError as error:
        if is_disk_full(error):
            raise disk_full_error(where, error) from error
        raise Unavailable(
            "The gateway's database does not answer.",
            where=where,
            found=str(error).splitlines()[0][:300],
            todo="Start it, or correct DRIFTLINE_GATEWAY_STORE.",
        ) from error


def now() -> float:
    """Seconds since 1970, the unit of time in all tables."""
    return time.time()
