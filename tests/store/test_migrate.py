"""Promise: a store of any earlier version is brought up to date once, whole or not at all; a newer one is refused."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import JSON, Engine, Integer, create_engine, inspect, select, text

from services.store.database import Store, config_version, tables
from services.store.keys import create_key, list_keys, read_keyring
from services.store.migrate import HEAD, VERSION_TABLE
from services.store.migrations import initial
from services.store.migrations.standard_terms import COLUMNS, TABLES
from tasks.core.errors import Unavailable
from tasks.core.settings import ROOT, Settings
from tests.postgres import running_postgres

STARTING = """
import sys
from pathlib import Path
from tasks.core.settings import Settings
from services.store.database import Store
sys.stdin.read(1)
Store(Settings(state=Path(sys.argv[1]), gateway_store=sys.argv[2])).close()
"""
# as Driftline wrote it before it had revisions: no owner of a key, no table of revisions
BEFORE = """
CREATE TABLE keys (id VARCHAR(16) NOT NULL, hash VARCHAR(64) NOT NULL, team VARCHAR(64) NOT NULL, roles JSON NOT NULL,
  rpm INTEGER, tpm INTEGER, created_at DOUBLE PRECISION NOT NULL, revoked_at DOUBLE PRECISION, PRIMARY KEY (id));
CREATE TABLE version (only INTEGER NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (only));
INSERT INTO version VALUES (1, 7);
INSERT INTO keys VALUES ('old', 'h', 'team', '["predict", "approve"]', 5, NULL, 0, NULL);
"""


def database(state: Path) -> sqlite3.Connection:
    path = state / "gateway" / "gateway.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    return sqlite3.connect(path)


def test_revisions_lead_to_the_schema_that_the_code_uses(tmp_path):
    """Table for table and column for column; the newest one is the one that is looked for at each start."""
    with closing(Store(Settings(state=tmp_path))) as store, store.reading() as connection:
        assert connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar() == HEAD
        options = {"version_table": VERSION_TABLE, "compare_type": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), tables) == []


def test_a_store_without_revisions_keeps_its_rows(tmp_path):
    """Its keys open what they did, and are nobody's."""
    with closing(database(tmp_path)) as before, before:
        before.executescript(BEFORE)
    with closing(Store(Settings(state=tmp_path))) as store:
        (key,) = list_keys(store)
        assert (key["id"], key["rpm"], key["owner"], key["created_by"]) == ("old", 5, "", "")
        assert read_keyring(store).by_hash["h"].roles == {"predict", "approve"}
        assert store.config_version() == 7
        create_key(store, "team", ["predict"], None, None, None)


def test_a_newer_store_is_refused_and_left_as_it_is(tmp_path):
    settings = Settings(state=tmp_path)
    Store(settings).close()
    with closing(database(tmp_path)) as newer, newer:
        newer.execute(f"UPDATE {VERSION_TABLE} SET version_num = 'of_next_year'")
    with pytest.raises(Unavailable, match="newer Driftline") as refused:
        Store(settings)
    assert "of_next_year" in str(refused.value)
    with closing(database(tmp_path)) as after:
        assert after.execute(f"SELECT * FROM {VERSION_TABLE}").fetchall() == [("of_next_year",)]


def test_what_fails_on_the_way_changes_nothing(tmp_path, monkeypatch):
    """A revision that breaks, or is killed, leaves the store as it was, and the next start does it all."""
    with closing(database(tmp_path)) as before, before:
        before.executescript(BEFORE)
        before.execute("CREATE TABLE alerts_of_before (owner)")
        before.execute("ALTER TABLE keys ADD owner TEXT")  # so that the second revision can't add it
        before.commit()
    with pytest.raises(Unavailable):
        Store(Settings(state=tmp_path))
    with closing(database(tmp_path)) as after, after:
        names = {name for (name,) in after.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert names == {"keys", "version", "alerts_of_before"}
        after.execute("ALTER TABLE keys DROP COLUMN owner")
    Store(Settings(state=tmp_path)).close()


def started_at_once(state: Path, url: str, times: int = 6) -> None:
    """Open the store in so many processes at the same moment."""
    command = [sys.executable, "-c", STARTING, str(state), url]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(times)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors


@pytest.mark.parametrize("old", [False, True])
def test_gateways_that_start_at_once_do_not_race(tmp_path, old):
    if old:
        with closing(database(tmp_path)) as before, before:
            before.executescript(BEFORE)
    started_at_once(tmp_path, "")
    with closing(Store(Settings(state=tmp_path))) as store, store.reading() as connection:
        assert connection.execute(select(config_version.c.version)).scalars().all() == [7 if old else 0]


def test_on_postgres_too(tmp_path):
    with running_postgres() as server:
        started_at_once(tmp_path, server.url)
        with closing(Store(Settings(state=tmp_path, gateway_store=server.url))) as store, store.reading() as connection:
            assert connection.execute(select(config_version.c.version)).scalars().all() == [0]
            assert connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalars().all() == [HEAD]


def test_an_up_to_date_store_needs_no_alembic(tmp_path):
    """Its import would cost each command a third of a second."""
    Store(Settings(state=tmp_path)).close()
    code = STARTING + "assert not [name for name in sys.modules if name.startswith('alembic')]"
    subprocess.run([sys.executable, "-c", code, str(tmp_path), ""], cwd=ROOT, input="x", text=True, check=True)


KILLED = """
import os, signal, sys
from pathlib import Path
from services.store.database import Store
from tasks.core.settings import Settings
from alembic import op
op.create_table = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # after the renames
Store(Settings(state=Path(sys.argv[1])))
"""


def rows_of_initial(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """Make a database as the initial revision did, with three rows in each table; return them by table."""
    rows: dict[str, list[dict[str, Any]]] = {}
    initial.tables.create_all(engine)
    with engine.begin() as connection:
        for table in initial.tables.sorted_tables:
            rows[table.name] = [
                {column.name: _value(column, number) for column in table.columns} for number in range(1, 4)
            ]
            connection.execute(table.insert(), rows[table.name])
        connection.execute(text(f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        connection.execute(text(f"INSERT INTO {VERSION_TABLE} VALUES ('initial')"))
    return rows


def _value(column, number):
    if isinstance(column.type, JSON):
        return [f"key:{number}"]
    if isinstance(column.type, Integer):
        return number
    return number / 2 if column.type.python_type is float else f"{column.name[:3]}-{number}"


def has_all_of(engine: Engine, before: dict[str, list[dict[str, Any]]]) -> None:
    """Every row and value under the new names, with the same indexes, keys and constraints as a new database."""
    with engine.connect() as connection:
        for name, rows in before.items():
            new = tables.tables[TABLES.get(name, name)]
            found = connection.execute(select(new).order_by(*new.primary_key.columns)).mappings().all()
            renamed = [{COLUMNS.get(new.name, {}).get(key, key): row[key] for key in row} for row in rows]
            assert [{key: row[key] for key in renamed[0]} for row in found] == renamed, name
        options = {"version_table": VERSION_TABLE, "compare_type": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), tables) == []


def constraints(engine: Engine) -> dict[str, Any]:
    found, inspector = {}, inspect(engine)
    for name in tables.tables:
        unique = sorted(str(each["column_names"]) for each in inspector.get_unique_constraints(name))
        indexes = sorted((str(each["name"]), str(each["column_names"])) for each in inspector.get_indexes(name))
        found[name] = inspector.get_pk_constraint(name)["constrained_columns"], unique, indexes
    return found


def test_every_row_of_an_initial_store_is_preserved(tmp_path):
    database(tmp_path).close()
    engine = create_engine(f"sqlite:///{tmp_path / 'gateway' / 'gateway.db'}")
    before = rows_of_initial(engine)
    Store(Settings(state=tmp_path)).close()
    has_all_of(engine, before)
    with closing(Store(Settings(state=tmp_path / "new"))) as new:
        assert constraints(engine) == constraints(new.engine)
    engine.dispose()


def test_a_migration_that_is_killed_starts_again(tmp_path):
    database(tmp_path).close()
    engine = create_engine(f"sqlite:///{tmp_path / 'gateway' / 'gateway.db'}")
    before = rows_of_initial(engine)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, check=False)
    assert killed.returncode == -9
    with engine.connect() as connection:
        assert len(connection.execute(text("SELECT * FROM ledger")).all()) == 3
        assert connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar() == "initial"
    Store(Settings(state=tmp_path)).close()
    has_all_of(engine, before)
    engine.dispose()


def test_rows_are_preserved_on_postgres_too(tmp_path):
    with running_postgres() as server:
        engine = create_engine(server.url)
        before = rows_of_initial(engine)
        Store(Settings(state=tmp_path, gateway_store=server.url)).close()
        has_all_of(engine, before)
        named = text("SELECT relname FROM pg_class WHERE relname ~ '^(ledger|purses|moves|pushes|alerts|version)'")
        with engine.connect() as connection:
            assert connection.execute(named).scalars().all() == []
        engine.dispose()
