"""Approvals: a person approves or rejects a release on its evidence, and never a release of their own run."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import ConfigDict, Field
from sqlalchemy import insert, select, update

from services.store.audit import record_audit_event
from services.store.database import Store, approvals, now
from tasks.core.actor import Actor, current_actor, person
from tasks.core.config import Result, Section, digest_of
from tasks.core.errors import InputError

MAX_REASON = 2_000  # characters
MAX_NAME = 120  # characters of a person's name, as the column has

State = Literal["waiting", "approved", "rejected", "expired", "lapsed"]


class Approval(Result):
    """A request for approval and its outcome; its JSON is that of the HTTP API."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    case: str
    evidence: str  # digest of verdict, weights, data and champion
    state: State  # expired: no decision before the deadline; lapsed: approval of other evidence was requested since
    as_of: datetime
    requested_by: str = Field(alias="asked_by")
    requested_at: datetime = Field(alias="asked_at")
    expires_at: datetime
    run: str  # id of the suspended flow run in Prefect; empty: none
    evidence_summary: str = Field(alias="shown")
    decided_by: str = Field("", alias="who")
    channel: str = Field("", alias="via")  # terminal, prefect, or the API key
    reason: str = Field("", alias="why")

    @property
    def outcome(self) -> str:
        """The state as a sentence, with the reason."""
        sentence = {
            "waiting": "the approval is pending",
            "approved": f"{self.decided_by} approved",
            "rejected": f"{self.decided_by} rejected",
            "expired": "the deadline passed without a decision",
            "lapsed": "the evidence has changed since",
        }[self.state]
        return f"{sentence}: {self.reason}" if self.reason else sentence


class ApprovalDecision(Section):
    """The body of a decision over HTTP."""

    model_config = ConfigDict(populate_by_name=True)

    decision: Literal["approve", "reject"]
    evidence: str = Field(min_length=4, max_length=64, description="Digest of the evidence reviewed, or its prefix.")
    reason: str = Field("", max_length=MAX_REASON, alias="why")


@dataclass(frozen=True)
class ApprovalRequest:
    """What is submitted for approval, and by which person."""

    case: str
    evidence: str  # digest
    as_of: datetime
    requested_by: str
    evidence_summary: str
    run: str = ""  # of Prefect, if it is suspended until the decision


@dataclass(frozen=True)
class Review:
    """A person's decision on a pending request."""

    evidence: str  # digest, or its prefix
    approves: bool
    decided_by: str
    channel: str
    reason: str = ""


def evidence_digest(verdict: str, weights: str, data: str, *, champion: str | None) -> str:
    """What an approval refers to, by the digests of all that was shown."""
    return digest_of([verdict, weights, data, champion])


def request_approval(store: Store, request: ApprovalRequest, within: timedelta) -> Approval:
    """Request approval of this evidence, once; pending requests with other evidence of the case lapse."""
    requested, of_case = now(), approvals.c.case == request.case
    same, others = (
        of_case & (approvals.c.evidence == request.evidence),
        of_case & (approvals.c.evidence != request.evidence),
    )
    pending = {"requested_at": requested, "expires_at": requested + within.total_seconds(), "state": "waiting"}
    row = {**asdict(request), "as_of": request.as_of.isoformat(), "requested_by": request.requested_by[:MAX_NAME]}
    with store.writing() as connection:
        connection.execute(update(approvals).where(others, approvals.c.state == "waiting").values(state="lapsed"))
        existing = connection.execute(select(approvals.c.state).where(same)).scalar()
        if existing is None:
            connection.execute(insert(approvals).values(**row, **pending, decided_by="", channel="", reason=""))
        else:
            again = pending if existing == "lapsed" else {}
            connection.execute(update(approvals).where(same).values(run=request.run, **again))
        if existing in (None, "lapsed"):
            requester = Actor(current_actor().kind, request.requested_by)
            record_audit_event(
                connection, "approval.request", request.evidence, case=request.case, actor=requester, run=request.run
            )
    return _find(store, request.case, request.evidence)


def list_approvals(store: Store, case: str | None = None) -> list[Approval]:
    """All requests of a case, or of all cases, latest first."""
    query = select(approvals).order_by(approvals.c.requested_at.desc())
    with store.reading() as connection:
        rows = connection.execute(query.where(approvals.c.case == case) if case else query).mappings().all()
    return [_approval(row) for row in rows]


def decide(store: Store, case: str, review: Review) -> Approval:
    """Record a person's decision on the pending request of a case.

    Raises: InputError when no request is pending, it has other evidence, or the person requested it.
    """
    pending = next((each for each in list_approvals(store, case) if each.state == "waiting"), None)
    if pending is None:
        raise InputError(f"No approval of {case} is pending.", todo="driftline status")
    _check(pending, review)
    with store.writing() as connection:
        same = (approvals.c.case == case) & (approvals.c.evidence == pending.evidence)
        decided = connection.execute(
            update(approvals)
            .where(same, approvals.c.state == "waiting")
            .values(
                state="approved" if review.approves else "rejected",
                decided_by=review.decided_by.strip(),
                channel=review.channel,
                reason=review.reason,
                decided_at=now(),
            )
        )
        if decided.rowcount:
            record_audit_event(
                connection,
                "approval.approve" if review.approves else "approval.reject",
                pending.evidence,
                case=case,
                actor=person(review.decided_by.strip()),
                channel=review.channel,
                reason=review.reason,
            )
    if not decided.rowcount:
        raise InputError("Another person has just decided.", where=case, todo="driftline status")
    return _find(store, case, pending.evidence)


def _check(pending: Approval, review: Review) -> None:
    """Raises: InputError unless this person may decide on this evidence."""
    case, person = pending.case, review.decided_by
    if len(review.evidence) < 4 or not pending.evidence.startswith(review.evidence):
        raise InputError(
            "The pending request has other evidence.",
            where=case,
            found=review.evidence,
            allowed=pending.evidence[:12],
            todo="Review the pending request, and decide on its evidence.",
        )
    if not person.strip():
        raise InputError(
            "The person who decides is unknown.",
            where=case,
            allowed="a person: the operating system's user at a terminal, the owner of an API key over HTTP",
            todo="driftline keys owner KEY NAME",
        )
    if len(person) > MAX_NAME or len(review.reason) > MAX_REASON:
        allowed = f"a name of {MAX_NAME} characters, a reason of {MAX_REASON:,}"
        found = f"{len(person)}, {len(review.reason):,}"
        raise InputError("The name or the reason is too long.", where=case, found=found, allowed=allowed)
    if same_person(person, pending.requested_by):
        raise InputError(
            "People can't decide on their own runs.",
            where=case,
            found=f"{person} requested the approval",
            allowed="another person",
            todo="Ask another person to review it.",
        )


def same_person(one: str, other: str) -> bool:
    """Whether two names are equal; case, spaces and Unicode forms are ignored."""
    first, second = (" ".join(unicodedata.normalize("NFKC", name).casefold().split()) for name in (one, other))
    return first == second


def find_by_run(store: Store, run: str) -> Approval | None:
    """The latest request of a flow run."""
    return next((each for each in list_approvals(store) if run and each.run == run), None)


def _find(store: Store, case: str, evidence: str) -> Approval:
    return next(each for each in list_approvals(store, case) if each.evidence == evidence)


def _approval(row: Mapping[Any, Any]) -> Approval:
    values = {name: value for name, value in row.items() if name != "decided_at"}
    if values["state"] == "waiting" and values["expires_at"] < now():
        values["state"] = "expired"
    for name in ("requested_at", "expires_at"):
        values[name] = datetime.fromtimestamp(values[name], UTC)
    return Approval(**values)
