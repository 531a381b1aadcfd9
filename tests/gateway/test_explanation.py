"""Promise: an answer leads to its release and to every decision behind it; what was not recorded is named."""

from __future__ import annotations

import dataclasses
import json
import shutil
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from services.gateway.call import Call
from services.gateway.explanation import explain_request
from services.gateway.request_log import RequestLog, find_call
from services.rollout.past import production_at, production_changes
from services.rollout.shares import ShareSpec, promote, rollback, set_share, upsert_release
from services.serving.retrieval import Retrieval
from services.store.approvals import ApprovalRequest, Review, decide, evidence_digest, request_approval
from services.store.database import DAY, DONE, USAGE_COLUMNS, Store, endpoints, usage_records
from services.store.decisions import RunFacts, record_run, record_validation, record_verdict
from services.store.task import record_waivers
from tasks.core.actor import Actor, acting, person
from tasks.core.config import digest_of
from tasks.core.errors import InputError
from tasks.core.files import write_text
from tasks.core.processes import current_user
from tasks.data.results import Snapshot, ValidatedBatches, Validation
from tasks.evaluate.results import Criterion, Verdict
from tasks.release.registry import read_release
from tasks.release.seal import release_folder
from tasks.train.results import Candidate
from tests.gateway.in_process import ROUTE, call_of, settings_of
from tests.waiting import wait_for

AS_OF = datetime(2024, 6, 1, tzinfo=UTC)
LINEAGE = {"commit": "c" * 40, "dirty": "false", "lock_digest": "1" * 64, "case_digest": "2" * 64}
WAIVED = Criterion(name="leak: age", observed=0.99, required="< 0.98 auc", passed=True, waiver="known before")


class Shop:
    """A case with one release, whose every decision was recorded as in a run."""

    def __init__(self, state: Path) -> None:
        self.settings = settings_of(state)
        self.verdict = Verdict(
            decision="promote", criteria=(WAIVED,), metrics={}, champion=None, scores=state, digest="e" * 64
        )
        self.sealed: dict[str, Any] = {
            "case": "shop",
            "kind": "llm",
            "as_of": AS_OF.isoformat(),
            "commit": LINEAGE["commit"],
            "dirty": False,
            "lock": LINEAGE["lock_digest"],
            "config": LINEAGE["case_digest"],
            "data": "da.dir",
            "definitions": "f" * 64,
            "weights": "a" * 64,
            "prompt": {"name": "polite", "digest": "b" * 64},
            "knowledge": {"index": "9" * 64},
            "verdict": {"decision": "promote", "digest": self.verdict.digest, "champion": None, "criteria": []},
            "files": {},
        }
        self.digest = digest_of(self.sealed)
        self.folder = release_folder(self.settings.state, "shop", self.digest)
        recorded = {"run_id": "run-1", "created_at": "2024-06-01", "rows": {"train": 9}, "data": "9 rows"}
        manifest = {"digest": self.digest, "sealed": self.sealed, "recorded": recorded}
        write_text(self.folder / "manifest.json", json.dumps(manifest))
        with acting(Actor("schedule", "schedule")):
            self._run(state)
        with closing(Store(self.settings)) as store:
            evidence = evidence_digest(self.verdict.digest, "a" * 64, "da.dir", champion=None)
            request_approval(store, ApprovalRequest("shop", evidence, AS_OF, "bo", "summary"), timedelta(hours=1))
            decide(store, "shop", Review(evidence, True, "anna", "terminal", "fine"))
            upsert_release(store, manifest)
            with acting(person("anna")):
                promote(store, "shop", self.digest, "released")

    def _run(self, state: Path) -> None:
        facts = {"flow": "release", "profile": "", "as_of": AS_OF.isoformat(), "run": "flow-1"}
        record_run(RunFacts(case="shop", lineage=LINEAGE, sections={"prompt": "1"}, **facts), self.settings)
        checked = Validation(
            source="orders",
            rows=9,
            quarantined={},
            failed=[],
            warnings=["few"],
            expectations=3,
            docs=None,
            quarantine=None,
        )
        batches = ValidatedBatches(source="orders", files={}, rows=9, quarantined=1, validation=checked)
        snapshot = Snapshot(case="shop", as_of=AS_OF, digest="da.dir", path=state, rows={}, quarantined={}, docs={})
        candidate = Candidate(
            case="shop",
            as_of=AS_OF,
            run_id="run-1",
            folder=state,
            weights_digest="a" * 64,
            frame=state,
            data_digest="da.dir",
            definitions_digest="f" * 64,
            columns=(),
            train_rows=9,
            holdout_rows=3,
        )
        for _ in range(2):  # the second one is a restarted run
            record_validation(snapshot, [batches], self.settings)
            record_verdict(candidate, self.verdict, self.settings)
            record_waivers(read_release(self.folder, "1"), self.verdict, self.settings)

    def ask(self, log: bool = True) -> Call:
        """A settled call, with the texts of the request log."""
        route = dataclasses.replace(ROUTE, digest=self.digest)
        call = call_of(route=route, interface="chat")
        call.state, call.status, call.price = DONE, 200, 2_000_000
        call.retrieval = Retrieval(passages=("p1",), similarity=0.5, cited=("p1",))
        row = dict.fromkeys(("reserved", "retries", *USAGE_COLUMNS), 0) | {
            "id": call.id,
            "at": call.at,
            "day": int(call.at // DAY),
            "worker": "w",
            "interface": "chat",
            "team": "t",
            "key": "k",
            "case": "shop",
            "digest": self.digest,
            "role": "champion",
            "budgets": [],
            "state": DONE,
            "status": 200,
            "price": call.price,
            "retrieval": call.retrieval.model_dump(mode="json"),
        }
        with closing(Store(self.settings)) as store, store.writing() as connection:
            connection.execute(insert(usage_records).values(**row))
        if log:
            folder = self.settings.state / "gateway" / "requests"
            written = RequestLog(folder, "worker", bytes.decode, lambda: None)
            written.put(call)
            written.close()
        return call


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_an_answer_leads_to_all_that_led_to_it(shop: Shop) -> None:
    call = shop.ask()
    found = explain_request(call.id, shop.settings)
    assert found.request["content"] == {"rows": []}
    assert found.answer == {"content": {"predictions": []}}
    assert found.release["digest"] == shop.digest
    assert (found.traffic["by"], found.traffic["reason"], found.traffic["actor_kind"]) == ("anna", "released", "person")
    assert (found.verdict["decision"], found.verdict["by"]) == ("promote", "process: pipeline, started by schedule")
    assert found.waivers[0]["criterion"] == "leak: age"
    assert (found.approval["decided_by"], found.approval["reason"]) == ("anna", "fine")
    assert found.run["id"] == "run-1"
    assert found.code["commit"] == "c" * 40
    assert found.data["digest"] == "da.dir"
    assert found.validation["sources"]["orders"] == {
        "rows": 9,
        "quarantined": 1,
        "expectations": 3,
        "warnings": ["few"],
    }
    assert found.prompt == {"name": "polite", "digest": "b" * 64, "knowledge_index": "9" * 64}
    assert found.passages["cited"] == ["p1"]
    assert found.cost["price"] == 0.002
    assert found.missing == []
    assert found.audit_records == [1, 3, 4, 5, 8]


def test_what_was_not_recorded_is_named(shop: Shop) -> None:
    """A request whose text is not logged, of a release whose folder is gone."""
    call = shop.ask(log=False)
    shutil.rmtree(shop.folder)
    found = explain_request(call.id, shop.settings)
    assert found.release["digest"] == shop.digest
    assert found.traffic["by"] == "anna"
    assert len(found.missing) == 2


def test_a_changed_release_is_not_shown_as_evidence(shop: Shop) -> None:
    call = shop.ask()
    path = shop.folder / "manifest.json"
    write_text(path, path.read_text().replace("polite", "rude"))
    found = explain_request(call.id, shop.settings)
    assert found.verdict == found.code == {}
    assert "differs from what was sealed" in found.missing[0]


def test_an_unknown_request_is_an_error(shop: Shop) -> None:
    for name in ("req-none", "", "'; --"):
        with pytest.raises(InputError, match="no request"):
            explain_request(name, shop.settings)


def test_a_call_is_found_before_and_after_it_is_packed(tmp_path: Path) -> None:
    """And nothing else is taken for it."""
    log = RequestLog(tmp_path, "worker", bytes.decode, lambda: None)
    calls = [call_of() for _ in range(3)]
    for call in calls:
        log.put(call)
    wait_for(lambda: find_call(tmp_path, calls[2].id, calls[2].at) is not None)
    assert list(tmp_path.glob("*.jsonl"))
    log.close()
    assert not list(tmp_path.glob("*.jsonl"))
    for call in calls:
        assert find_call(tmp_path, call.id, call.at) is not None
    assert find_call(tmp_path, "req-none", calls[0].at) is None
    assert find_call(tmp_path, calls[0].id, 0.0) is None


def test_the_past_is_what_the_records_say(shop: Shop) -> None:
    """Who answered the case at each moment, by whose decision and why."""
    with closing(Store(shop.settings)) as store:
        for digest in ("b" * 64, "c" * 64):
            upsert_release(store, {"digest": digest, "sealed": {"case": "shop", "kind": "llm"}})
            with store.changing() as connection:
                connection.execute(insert(endpoints).values(digest=digest, address="unix:/nowhere"))
        with store.changing() as connection:
            connection.execute(insert(endpoints).values(digest=shop.digest, address="unix:/nowhere"))
        set_share(store, "shop", ShareSpec("b" * 64, "canary", 5), "a try")
        with acting(Actor("process", "gateway")):
            promote(store, "shop", "b" * 64, "its plan is complete")
            rollback(store, "shop", None, "it is worse")
        changes = production_changes(store, "shop")
        assert [(each.champion, len(each.shares), each.by) for each in changes] == [
            (shop.digest, 0, "anna"),
            (shop.digest, 1, current_user()),
            ("b" * 64, 0, "process: gateway"),
            (shop.digest, 0, "process: gateway"),
        ]
        assert production_at("shop", changes, changes[2].at).reason == "its plan is complete"
        assert production_at("shop", changes, datetime.now(UTC)).champion == shop.digest
        with pytest.raises(InputError, match="in production then"):
            production_at("shop", changes, AS_OF)
        with pytest.raises(InputError, match="ever in production"):
            production_changes(store, "nothing")
