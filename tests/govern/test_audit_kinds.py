"""Promise: every kind of decision is in the audit log: each is made for real, and found there by its action."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert

from cli import audit, card, retract
from services.rollout.shares import promote, rollback, upsert_release
from services.store.approvals import ApprovalRequest, Review, decide, request_approval
from services.store.audit import audit_events
from services.store.audit_verify import verify_chain
from services.store.database import Store, endpoints
from services.store.decisions import RunFacts, record_run, record_verdict
from services.store.keys import create_key
from services.store.task import record_waivers
from tasks.core.settings import Settings
from tasks.evaluate.results import Verdict
from tasks.release.results import Release
from tasks.train.results import Candidate

ONE, TWO = "1" * 64, "2" * 64
NOW = datetime(2024, 1, 1, tzinfo=UTC)
KINDS = {
    "run": "run.begin",
    "verdict": "verdict.record",
    "approval": "approval.approve",
    "waiver": "criterion.waive",
    "promotion": "release.promote",
    "rollback": "release.rollback",
    "key": "key.create",
    "guardrail": "config.change: guardrails",
    "prompt": "config.change: prompt",
    "configuration": "config.change: train",
    "retraction": "row.retract",
    "export": "evidence.export",
    "anchor": "audit.anchor",
}


def decide_everything(config: Settings, folder: Path) -> None:
    lineage = {"commit": "c" * 40, "dirty": "false", "lock_digest": ONE}
    sections = {"guardrails": "a", "prompt": "a", "train": "a"}
    for number, changed in enumerate(("", "guardrails", "prompt", "train")):
        sections = sections | ({changed: "b"} if changed else {})
        of_case = {**lineage, "case_digest": str(number) * 64}
        record_run(RunFacts("credit", "release", "", NOW.isoformat(), "r", of_case, sections), config)
    waived = {"name": "leak: a", "observed": 1.0, "required": "< 0.98", "passed": True, "waiver": "known before"}
    verdict = Verdict.model_validate(
        {"decision": "promote", "criteria": (waived,), "metrics": {}, "champion": None, "scores": folder, "digest": ONE}
    )
    parts = {"run_id": "r", "folder": folder, "weights_digest": ONE, "frame": folder, "data_digest": "d.dir"}
    parts |= {"definitions_digest": ONE, "columns": (), "train_rows": 1, "holdout_rows": 1}
    record_verdict(Candidate.model_validate({"case": "credit", "as_of": NOW, **parts}), verdict, config)
    release = Release.model_validate(
        {"case": "credit", "digest": TWO, "as_of": NOW, "folder": folder, "bento": "b", "version": "1"}
        | {"run_id": "r", "kind": "tabular", "columns": ()}
    )
    record_waivers(release, verdict, config)
    with closing(Store(config)) as store:
        request_approval(store, ApprovalRequest("credit", ONE, NOW, "bo", "summary"), timedelta(hours=1))
        decide(store, "credit", Review(ONE, True, "anna", "terminal", "fine"))
        for digest in (ONE, TWO):
            upsert_release(store, {"digest": digest, "sealed": {"case": "credit", "kind": "tabular"}})
            with store.writing() as connection:
                connection.execute(insert(endpoints).values(digest=digest, address="http://127.0.0.1:1"))
            promote(store, "credit", digest, "a reason")
        rollback(store, "credit", ONE, "a reason")
        create_key(store, "team", ["predict"], None, None, None)
    card.deliver("card", "text", "credit", folder / "card.md")
    audit.anchor(folder / "anchors")
    retract.retract("credit", "10004", None, confirm=True)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, state: Path) -> set[str]:
    """What was recorded, a change of the configuration with each section."""
    folder = tmp_path_factory.mktemp("decisions")
    config = Settings(state=folder / "state", data=folder / "data", tracking_url=f"sqlite:///{state / 'mlflow.db'}")
    with pytest.MonkeyPatch.context() as patch:
        for module in (card, retract):
            patch.setattr(module, "settings", lambda: config)
        patch.setattr("tasks.core.settings.settings", lambda: config)
        decide_everything(config, folder)
    with closing(Store(config)) as store:
        assert verify_chain(store).intact
        events = audit_events(store)
    changes = {f"config.change: {name}" for each in events for name in each.details.get("changed", [])}
    return changes | {event.action for event in events}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_decision_is_recorded(recorded, kind):
    assert KINDS[kind] in recorded
