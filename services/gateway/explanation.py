"""Why a request got its answer: from the answer to the release, and to every decision that led to it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from services.gateway.request_log import find_call
from services.store.approvals import evidence_digest, list_approvals
from services.store.audit import AuditEvent, audit_events
from services.store.database import Store, usage_records
from services.store.decisions import CHANGE, DATA, VERDICT
from services.store.task import WAIVE
from tasks.core.config import Result
from tasks.core.errors import DriftlineError, InputError
from tasks.core.settings import Settings
from tasks.release.config import NANO
from tasks.release.seal import release_folder, verify

CHAMPIONS = ("release.promote", "release.rollback")
NOT_LOGGED = "the request log has no text of it"


class Explanation(Result):
    """One request with all that led to its answer; a part is empty where nothing was recorded, and says so."""

    request: dict[str, Any]
    answer: dict[str, Any]
    release: dict[str, Any]
    traffic: dict[str, Any]  # the decision that sent the case's traffic to the release
    verdict: dict[str, Any]
    waivers: list[dict[str, Any]]
    approval: dict[str, Any]
    run: dict[str, Any]
    code: dict[str, Any]
    data: dict[str, Any]
    validation: dict[str, Any]
    features: dict[str, Any]
    prompt: dict[str, Any]
    passages: dict[str, Any]
    guardrails: dict[str, Any]
    cost: dict[str, Any]
    audit_records: list[int]  # numbers of the audit records that it rests on
    missing: list[str]  # what was not recorded, in sentences


@dataclass(frozen=True)
class _Facts:
    """What was read of a request."""

    usage: Mapping[str, Any]
    call: Mapping[str, Any]  # of the request log; empty: not logged
    manifest: Mapping[str, Any]  # empty: the release's folder is gone
    problem: str  # why the manifest is empty
    events: list[AuditEvent]  # of the case

    @property
    def at(self) -> datetime:
        return datetime.fromtimestamp(self.usage["at"], UTC)

    @property
    def sealed(self) -> Mapping[str, Any]:
        sealed: Mapping[str, Any] = self.manifest.get("sealed", {})
        return sealed

    def latest(self, subject: str, *actions: str, before: datetime | None = None) -> AuditEvent | None:
        """The last event of these actions on a subject."""
        found = [event for event in self.events if event.action in actions and event.subject == subject]
        return next((event for event in reversed(found) if before is None or event.at <= before), None)


def explain_request(request_id: str, settings: Settings) -> Explanation:
    """Follow a request to its release, and the release to its origin.

    Raises: InputError when no request has this id.
    """
    with closing(Store(settings)) as store:
        usage = _usage(store, request_id)
        folder = release_folder(settings.state, usage["case"], usage["digest"])
        manifest: dict[str, Any] = {}
        problem = ""
        try:
            manifest = verify(folder)
        except DriftlineError as error:
            problem = f"the release can't be shown: {error.what} {error.where}"
        call = find_call(settings.state / "gateway" / "requests", request_id, usage["at"]) or {}
        facts = _Facts(usage, call, manifest, problem, audit_events(store, usage["case"]))
        approval = _approval(store, facts)
    return _explain(facts, approval)


def _usage(store: Store, request_id: str) -> dict[str, Any]:
    with store.reading() as connection:
        row = connection.execute(select(usage_records).where(usage_records.c.id == request_id)).mappings().first()
    if row is None:
        raise InputError(
            "There is no request of this id.",
            found=request_id,
            allowed="the x-request-id of an answer, such as req-3f0c...",
            todo="Read it from the answer's headers, or from the request log: docs/guides/governance.md.",
        )
    return dict(row)


def _approval(store: Store, facts: _Facts) -> dict[str, Any]:
    """The approval of the release's evidence; empty when the case demanded none."""
    if not facts.sealed:
        return {}
    verdict = facts.sealed["verdict"]
    digest = evidence_digest(
        verdict["digest"], facts.sealed["weights"], facts.sealed["data"], champion=verdict["champion"]
    )
    found = next((each for each in list_approvals(store, facts.usage["case"]) if each.evidence == digest), None)
    return found.model_dump(mode="json", by_alias=False, exclude={"evidence_summary"}) if found else {}


def _explain(facts: _Facts, approval: dict[str, Any]) -> Explanation:
    usage, sealed, recorded = facts.usage, facts.sealed, facts.manifest.get("recorded", {})
    verdict = sealed.get("verdict", {})
    champion = facts.latest(usage["digest"], *CHAMPIONS, before=facts.at)
    judged = facts.latest(verdict.get("digest", ""), VERDICT)
    validated = facts.latest(sealed.get("data", ""), DATA)
    configured = facts.latest(sealed.get("config", ""), CHANGE)
    waived = [event for event in facts.events if (event.action, event.subject) == (WAIVE, usage["digest"])]
    request, answer = (_json(facts.call.get(name)) for name in ("request", "response"))
    retrieval = usage.get("retrieval") or {}
    guardrails = dict(usage.get("guard") or {})
    known = [event for event in (champion, judged, validated, configured, *waived) if event]
    return Explanation(
        request={name: usage[name] for name in ("id", "interface", "case", "team", "key", "role", "state", "status")}
        | {"at": facts.at.isoformat(), "seconds": usage["seconds"], "content": request},
        answer={"content": answer} if facts.call else {},
        release={"digest": usage["digest"], "as_of": sealed.get("as_of"), "created_at": recorded.get("created_at")}
        | ({"intact": True, "weights": sealed["weights"]} if sealed else {}),
        traffic=_event(champion),
        verdict={name: verdict[name] for name in ("decision", "digest", "champion")} | _event(judged)
        if verdict
        else {},
        waivers=[_event(event) | {"criterion": event.details["criterion"]} for event in waived],
        approval=approval,
        run={"id": recorded["run_id"], "rows": recorded.get("rows", {})} if recorded else {},
        code={name: sealed[name] for name in ("commit", "dirty", "lock", "config")} | _event(configured)
        if sealed
        else {},
        data={"digest": sealed["data"], "definitions": sealed["definitions"], "rows": recorded.get("data", "")}
        if sealed
        else {},
        validation=dict(validated.details) | _event(validated) if validated else {},
        features=_features(sealed, request),
        prompt=dict(sealed.get("prompt", {})) | _index(sealed),
        passages=dict(retrieval),
        guardrails=guardrails,
        cost={"price": usage["price"] / NANO, "engine_seconds": usage["engine_seconds"]}
        | {name: usage[name] for name in ("tokens_in", "tokens_cached", "tokens_out") if usage["tokens_in"]},
        audit_records=sorted({event.id for event in known}),
        missing=list(_missing(facts, champion, judged, validated)),
    )


def _missing(facts: _Facts, champion: AuditEvent | None, judged: AuditEvent | None, data: Any) -> Iterable[str]:
    if facts.problem:
        yield facts.problem
    if not facts.call:
        yield f"{NOT_LOGGED}: it is not written yet, was removed, or DRIFTLINE_GATEWAY_LOG is none"
    if facts.usage["role"] == "champion" and champion is None:
        yield "no audit record of the promotion"
    if facts.sealed and judged is None:
        yield "no audit record of the verdict: an earlier version of Driftline released it"
    if facts.sealed and data is None:
        yield "no audit record of the validation: an earlier version of Driftline took the snapshot"
    if facts.sealed.get("entities"):
        yield "feature values that came from the online store are not recorded with a request"


def _event(event: AuditEvent | None) -> dict[str, Any]:
    """Who decided, when and why."""
    if event is None:
        return {}
    return {
        "by": event.by,
        "actor_kind": event.actor_kind,
        "decided_at": event.at.isoformat(timespec="seconds"),
        "reason": str(event.details.get("reason", "")),
        "audit_record": event.id,
    }


def _features(sealed: Mapping[str, Any], request: Any) -> dict[str, Any]:
    """The feature values that stood in the request."""
    rows = request.get("rows") if isinstance(request, Mapping) else None
    return {"in_request": rows, "entities": sorted(sealed.get("entities", {}))} if rows else {}


def _index(sealed: Mapping[str, Any]) -> dict[str, Any]:
    knowledge = sealed.get("knowledge")
    return {"knowledge_index": knowledge["index"]} if knowledge else {}


def _json(text: Any) -> Any:
    """A logged text as JSON where it is JSON."""
    if isinstance(text, str):
        with suppress(ValueError, RecursionError):
            return json.loads(text)
    return text
