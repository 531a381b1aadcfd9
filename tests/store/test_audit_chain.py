"""Promise: an edited, removed, reordered or inserted audit record is found and named; nothing forks or tears the chain.

Whoever can write to the database can plant all of this: the triggers are dropped first.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DatabaseError

from services.store.audit import audit_events, record_audit_event
from services.store.audit_anchors import read_anchors, write_anchor
from services.store.audit_chain import GENESIS, canonical_record, record_digest
from services.store.audit_verify import chain_head, verify_chain
from services.store.database import Store
from tasks.core.actor import Actor, acting, person
from tasks.core.errors import InputError
from tasks.core.settings import ROOT, Settings
from tests.postgres import running_postgres

WRITER = """
import sys
from pathlib import Path
from services.store.audit import record_audit_event
from services.store.database import Store
from tasks.core.settings import Settings
store = Store(Settings(state=Path(sys.argv[1]), gateway_store=sys.argv[2]))
for number in range(int(sys.argv[3])):
    with store.writing() as connection:
        record_audit_event(connection, "key.revoke", f"{sys.argv[4]}-{number}")
    print(number, flush=True)
"""
SIX = 6


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Six records, and no trigger that protects them."""
    store = Store(Settings(state=tmp_path))
    for number in range(1, SIX + 1):
        with store.writing() as connection:
            record_audit_event(connection, "key.create", f"key {number}", case="shop", price=number / 3)
    with store.writing() as connection:
        for event in ("update", "delete"):
            connection.execute(text(f"DROP TRIGGER audit_events_no_{event}"))
    yield store
    store.close()


def rewrite(connection: Connection, number: int, previous: str | None = None, **changes: object) -> str:
    """Change a record as one who knows how it is hashed: with its columns and its digest."""
    row = connection.execute(text("SELECT record FROM audit_events WHERE id = :id"), {"id": number}).scalar_one()
    values = json.loads(row) | changes | ({"previous": previous} if previous else {})
    record = canonical_record(values)
    sets = ", ".join(f'"{name}" = :{name}' for name in changes)
    connection.execute(
        text(
            f"UPDATE audit_events SET record = :record, digest = :digest{', ' + sets if sets else ''} WHERE id = :was"
        ),
        {"record": record, "digest": record_digest(record), "was": number, **changes},
    )
    return record_digest(record)


def edit_column(connection: Connection) -> None:
    connection.execute(text("UPDATE audit_events SET actor = 'nobody' WHERE id = 3"))


def edit_kind(connection: Connection) -> None:
    """A machine's decision passed off as a person's."""
    connection.execute(text("UPDATE audit_events SET actor_kind = 'process' WHERE id = 3"))


def edit_record(connection: Connection) -> None:
    connection.execute(text("UPDATE audit_events SET record = replace(record, 'key 3', 'key 9') WHERE id = 3"))


def edit_digest(connection: Connection) -> None:
    connection.execute(text("UPDATE audit_events SET digest = :digest WHERE id = 3"), {"digest": "f" * 64})


def edit_record_and_digest(connection: Connection) -> None:
    rewrite(connection, 3, subject="key 9")


def replace_by_text(connection: Connection) -> None:
    values = {"record": "none", "digest": record_digest("none")}
    connection.execute(text("UPDATE audit_events SET record = :record, digest = :digest WHERE id = 3"), values)


def remove(connection: Connection) -> None:
    connection.execute(text("DELETE FROM audit_events WHERE id = 3"))


def remove_and_close_the_gap(connection: Connection) -> None:
    remove(connection)
    for number in (4, 5, 6):
        connection.execute(text("UPDATE audit_events SET id = :to WHERE id = :id"), {"id": number, "to": number - 1})


def remove_and_renumber(connection: Connection) -> None:
    """The records too, so that only the digests before them betray it."""
    remove(connection)
    for number in (4, 5, 6):
        rewrite(connection, number, id=number - 1)


def reorder(connection: Connection) -> None:
    for was, to in ((3, 99), (4, 3), (99, 4)):
        connection.execute(text("UPDATE audit_events SET id = :to WHERE id = :was"), {"was": was, "to": to})


def insert(connection: Connection) -> None:
    for number in (6, 5, 4, 3):
        connection.execute(text("UPDATE audit_events SET id = :to WHERE id = :id"), {"id": number, "to": number + 1})
    copied = "SELECT 3, at, actor, action, \"case\", 'key 9', actor_kind, record, digest FROM audit_events WHERE id = 2"
    connection.execute(text(f"INSERT INTO audit_events {copied}"))


def insert_before_the_first(connection: Connection) -> None:
    copied = 'SELECT 0, at, actor, action, "case", subject, actor_kind, record, digest FROM audit_events WHERE id = 1'
    connection.execute(text(f"INSERT INTO audit_events {copied}"))


@pytest.mark.parametrize(
    ("plant", "first"),
    [
        *((plant, 3) for plant in (edit_column, edit_kind, edit_record, edit_digest, edit_record_and_digest)),
        *((plant, 3) for plant in (replace_by_text, remove, remove_and_close_the_gap, reorder, insert)),
        (remove_and_renumber, 2),  # of the two at the break, the first is named
        (insert_before_the_first, 0),
    ],
)
def test_tampering_is_found_and_the_first_record_named(store, plant, first):
    assert verify_chain(store).intact
    with store.writing() as connection:
        plant(connection)
    found = verify_chain(store).tampering
    assert (found.id if found else None) == first, found


def test_a_removed_tail_is_found_by_an_anchor(store, tmp_path):
    """The chain alone can't show it: what is left is intact."""
    anchors = tmp_path / "outside" / "anchors"
    write_anchor(chain_head(store), anchors)
    with store.writing() as connection:
        connection.execute(text("DELETE FROM audit_events WHERE id > 4"))
    assert verify_chain(store).intact
    found = verify_chain(store, read_anchors(anchors)).tampering
    assert found is not None
    assert found.id == 5
    assert "removed" in found.finding


def test_a_chain_written_anew_is_found_by_an_anchor(store, tmp_path):
    """Every digest fits, since all were computed again."""
    write_anchor(chain_head(store), tmp_path / "anchors")
    with store.writing() as connection:
        previous = rewrite(connection, 3, subject="key 9")
        for number in range(4, SIX + 1):
            previous = rewrite(connection, number, previous)
    assert verify_chain(store).intact
    found = verify_chain(store, read_anchors(tmp_path / "anchors")).tampering
    assert found is not None
    assert "anchor" in found.finding


def test_a_longer_chain_matches_its_earlier_anchors(store, tmp_path):
    for _ in range(2):
        write_anchor(chain_head(store), tmp_path / "anchors")
        with store.writing() as connection:
            record_audit_event(connection, "key.revoke", "k")
    found = verify_chain(store, read_anchors(tmp_path / "anchors"))
    assert found.intact
    assert found.anchors == 2
    assert found.records == SIX + 2


@pytest.mark.parametrize("content", [b"no anchor\n", b"\xff\xfe", b'{"id": 3}\n'])
def test_a_file_without_anchors_is_refused(tmp_path, content):
    (tmp_path / "anchors").write_bytes(content)
    with pytest.raises(InputError, match="anchors"):
        read_anchors(tmp_path / "anchors")
    with pytest.raises(InputError, match="anchors"):
        read_anchors(tmp_path / "nowhere")


def test_records_can_be_checked_with_sha256_alone(store):
    """They are canonical JSON, stored as it is hashed; each holds the digest of the one before it."""
    import hashlib

    import rfc8785

    previous = GENESIS
    with store.reading() as connection:
        for record, digest in connection.execute(text("SELECT record, digest FROM audit_events ORDER BY id")):
            assert hashlib.sha256(record.encode()).hexdigest() == digest
            assert json.loads(record)["previous"] == previous
            assert rfc8785.dumps(json.loads(record)) == record.encode()
            previous = digest


def test_a_person_and_a_machine_of_one_name_differ(store):
    for actor in (person("anna"), Actor("schedule", "anna"), Actor("event", "anna"), Actor("process", "anna")):
        with acting(actor), store.writing() as connection:
            record_audit_event(connection, "share.set", "x")
    events = audit_events(store, "")
    assert [event.actor_kind for event in events] == ["person", "schedule", "event", "process"]
    assert [event.by for event in events] == ["anna", "schedule: anna", "event: anna", "process: anna"]


def test_what_json_can_not_hold_is_recorded_all_the_same(store):
    """No value makes a decision fail because it can't be recorded."""
    values = {"nan": float("nan"), "big": 2**70, "text": "a\ud800b\0", "list": (1, {2: None}), "path": Path("x")}
    with store.writing() as connection:
        record_audit_event(connection, "share.set", "x" * 5, **values)
    assert audit_events(store)[-1].details["big"] == str(2**70)
    assert verify_chain(store).intact


def test_a_clock_that_goes_back_leaves_the_chain_intact(store, monkeypatch):
    """The order is that of the numbers."""
    monkeypatch.setattr("services.store.audit.now", lambda: 5.0)
    with store.writing() as connection:
        record_audit_event(connection, "share.set", "last")
    assert audit_events(store)[-1].subject == "last"
    assert verify_chain(store).intact


EARLIER = """
CREATE TABLE driftline_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY);
INSERT INTO driftline_version VALUES ('guardrails');
CREATE TABLE audit_events (id INTEGER PRIMARY KEY, at DOUBLE NOT NULL, actor VARCHAR(120) NOT NULL,
  action VARCHAR(40) NOT NULL, "case" VARCHAR(64) NOT NULL, subject VARCHAR(80) NOT NULL, details JSON NOT NULL);
CREATE TRIGGER audit_events_no_update BEFORE UPDATE ON audit_events BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER audit_events_no_delete BEFORE DELETE ON audit_events BEGIN SELECT RAISE(ABORT, 'append-only'); END;
INSERT INTO audit_events VALUES (1, 5.5, 'anna', 'key.create', '', 'k', '{"budget": 1.5}');
INSERT INTO audit_events VALUES (3, 6, 'gateway', 'release.promote', 'shop', 'r', '{}');
"""


def test_existing_events_are_chained(tmp_path):
    """Without a gap, and nobody claims to know who was a person."""
    path = tmp_path / "gateway" / "gateway.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as before, before:
        before.executescript(EARLIER)
    with closing(Store(Settings(state=tmp_path))) as store:
        events = audit_events(store)
        assert [(event.id, event.actor, event.actor_kind, event.at.timestamp()) for event in events] == [
            (1, "anna", "unknown", 5.5),
            (2, "gateway", "unknown", 6.0),
        ]
        assert events[0].details == {"budget": 1.5}
        assert verify_chain(store).records == 2
        assert verify_chain(store).intact
        with pytest.raises(DatabaseError, match="append-only"), store.writing() as connection:
            connection.execute(text("DELETE FROM audit_events"))


def start_writer(state: Path, url: str, count: int, name: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITER, str(state), url, str(count), name]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)


def write_and_kill(state: Path, url: str = "") -> None:
    """Two writers finish, a third is killed while it writes: no record is lost, doubled or torn."""
    Store(Settings(state=state, gateway_store=url)).close()
    killed = start_writer(state, url, 100_000, "killed")
    writers = [start_writer(state, url, 40, name) for name in ("one", "two")]
    assert killed.stdout is not None
    assert killed.stdout.readline()
    time.sleep(0.3)
    killed.send_signal(signal.SIGKILL)
    confirmed = 1 + len(killed.communicate()[0].splitlines())
    assert [writer.wait(60) for writer in writers] == [0, 0]
    with closing(Store(Settings(state=state, gateway_store=url))) as store:
        assert verify_chain(store).intact
        subjects = [event.subject for event in audit_events(store)]
    for name in ("one", "two"):
        assert [each for each in subjects if each.startswith(name)] == [f"{name}-{i}" for i in range(40)]
    assert confirmed <= sum(each.startswith("killed") for each in subjects) <= confirmed + 1
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.close()


def test_writers_and_a_kill_leave_one_intact_chain(tmp_path):
    write_and_kill(tmp_path)


def test_writers_and_a_kill_leave_one_intact_chain_on_postgres(tmp_path):
    with running_postgres() as server:
        write_and_kill(tmp_path, server.url)


def test_a_full_disk_leaves_what_was_confirmed(tmp_path):
    """Files of the writer may have 250 kB, as on a disk that is full then; with space, the chain goes on."""
    config = Settings(state=tmp_path)
    Store(config).close()
    limited = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (250_000, 250_000))\n{WRITER}"
    command = [sys.executable, "-c", limited, str(tmp_path), "", "100000", "full"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "disk" in done.stderr
    confirmed = len(done.stdout.splitlines())
    assert confirmed > 10
    with closing(Store(config)) as store:
        found = verify_chain(store)
        assert found.intact
        assert found.records in (confirmed, confirmed + 1)
        with store.writing() as connection:
            record_audit_event(connection, "share.set", "after")
        assert verify_chain(store).records == found.records + 1
