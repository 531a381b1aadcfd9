"""Promise: every decision is recorded in its own transaction, and no record is changed or deleted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DatabaseError

from services.rollout.plan import begin_plan
from services.rollout.shares import ShareSpec, promote, remove_share, rollback, set_share, upsert_release
from services.store.approvals import ApprovalRequest, Review, decide, request_approval
from services.store.audit import audit_events, record_audit_event
from services.store.database import Store, endpoints
from services.store.keys import create_key, revoke_key, set_key_owner, set_team_limits
from services.store.task import record_waivers
from tasks.core.actor import acting, person
from tasks.core.errors import InputError
from tasks.core.processes import current_user
from tasks.core.settings import Settings
from tasks.evaluate.results import Verdict
from tasks.release.results import Release
from tests.postgres import running_postgres
from tests.rollout.plans import PLAN

NOW = datetime(2020, 1, 1, tzinfo=UTC)
ONE, TWO = "1" * 64, "2" * 64


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(Settings(state=tmp_path))
    yield store
    store.close()


def actions(store: Store, case: str | None = None) -> list[tuple[str, str, str]]:
    return [(event.action, event.actor, event.subject) for event in audit_events(store, case)]


def test_approvals_are_recorded(store):
    request = ApprovalRequest("shop", ONE, NOW, "bo", "summary")
    for _ in range(2):
        request_approval(store, request, timedelta(hours=1))
    with pytest.raises(InputError):
        decide(store, "shop", Review(ONE, True, "bo", "terminal"))
    decide(store, "shop", Review(ONE, True, "anna", "terminal", "fine"))
    assert actions(store) == [("approval.request", "bo", ONE), ("approval.approve", "anna", ONE)]
    event = audit_events(store, "shop")[-1]
    assert (event.actor_kind, event.details) == ("person", {"channel": "terminal", "reason": "fine"})


def test_waivers_are_recorded_once(store, tmp_path):
    """FAULTS 34, leaks: a waived criterion with its reason, also when a run is started again."""
    parts = {"version": "1", "run_id": "r", "kind": "tabular", "columns": ()}
    release = Release(case="shop", digest=ONE, as_of=NOW, folder=tmp_path, bento="shop:1", **parts)
    known = {"name": "leak: status", "observed": 1.0, "required": "< 0.98 auc", "passed": True}
    verdict = Verdict.model_validate(
        {"decision": "promote", "criteria": [{**known, "waiver": "known before"}, {**known, "name": "auc"}]}
        | {"metrics": {}, "champion": None, "scores": tmp_path, "digest": TWO}
    )
    for _ in range(2):
        with acting(person("anna")):
            record_waivers(release, verdict, Settings(state=tmp_path))
    assert actions(store) == [("criterion.waive", "anna", ONE)]
    assert audit_events(store, "shop")[0].details == {
        "criterion": "leak: status",
        "observed": 1.0,
        "reason": "known before",
    }


def test_keys_and_limits_are_recorded_without_secrets(store):
    id_, secret = create_key(store, "team", ["predict"], 5, None, 1.5)
    set_key_owner(store, id_, "anna")
    revoke_key(store, id_)
    set_team_limits(store, "team", None, None, 2)
    me = current_user()
    expected = [("key.create", id_), ("key.update", id_), ("key.revoke", id_), ("team.update", "team")]
    assert actions(store) == [(action, me, subject) for action, subject in expected]
    assert audit_events(store)[0].details["budget"] == 1.5
    assert secret not in str(audit_events(store))


def test_rollouts_are_recorded(store):
    for digest in (ONE, TWO):
        upsert_release(store, {"digest": digest, "sealed": {"case": "shop", "kind": "tabular"}})
        with store.changing() as connection:
            connection.execute(insert(endpoints).values(digest=digest, address="unix:/nowhere"))
    promote(store, "shop", ONE, "first")
    set_share(store, "shop", ShareSpec(TWO, "canary", 5), "a try")
    remove_share(store, "shop", TWO, "enough")
    begin_plan(store, "shop", TWO, PLAN)
    promote(store, "shop", TWO, "it is better")
    assert rollback(store, "shop", None, "it is worse") == ONE
    assert [(action, subject) for action, _, subject in actions(store, "shop")] == [
        ("release.promote", ONE),
        ("share.set", TWO),
        ("share.remove", TWO),
        ("share.set", TWO),
        ("plan.begin", TWO),
        ("release.promote", TWO),
        ("plan.end", TWO),
        ("release.rollback", ONE),
    ]


def test_a_failed_transaction_records_nothing(store):
    with pytest.raises(InputError):
        revoke_key(store, "no such key")
    with store.engine.connect() as connection:
        record_audit_event(connection, "key.revoke", "k")
        connection.rollback()
    assert audit_events(store) == []


def test_events_are_filtered_by_case_and_time(store):
    with store.writing() as connection:
        for case in ("shop", "other"):
            record_audit_event(connection, "share.set", ONE, case=case)
    assert [event.case for event in audit_events(store, "shop")] == ["shop"]
    assert audit_events(store, since=datetime.now(UTC) + timedelta(hours=1)) == []
    assert len(audit_events(store, since=datetime.now(UTC) - timedelta(hours=1))) == 2


def refuses_changes(store: Store) -> None:
    with store.writing() as connection:
        record_audit_event(connection, "key.revoke", "k")
    for change in ("UPDATE audit_events SET actor = 'nobody'", "DELETE FROM audit_events"):
        with pytest.raises(DatabaseError, match="append-only"), store.writing() as connection:
            connection.execute(text(change))
    assert len(audit_events(store)) == 1


def test_no_event_is_changed_or_deleted(store):
    refuses_changes(store)


def test_no_event_is_changed_on_postgres(tmp_path):
    with running_postgres() as server:
        store = Store(Settings(state=tmp_path, gateway_store=server.url))
        refuses_changes(store)
        with pytest.raises(DatabaseError, match="append-only"), store.writing() as connection:
            connection.execute(text("TRUNCATE audit_events"))
        store.close()
