"""A person's word on a release: asked for after the verdict, given on its evidence, never on one's own run."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import Field
from sqlalchemy import insert, select, update

from services.store.database import Store, approvals, now
from tasks.core.config import Result, Section
from tasks.core.errors import InputError

MAX_WHY = 2_000  # characters of a reason
MAX_PERSON = 120  # of a name, as the store's columns have

State = Literal["waiting", "approved", "rejected", "expired", "lapsed"]


class Approval(Result):
    """What was asked, and what became of it."""

    case: str
    evidence: str  # digest of verdict, weights, data and the champion compared with
    state: State  # expired: nobody answered in time; lapsed: other evidence was asked about since
    as_of: datetime
    asked_by: str
    asked_at: datetime
    expires_at: datetime
    run: str  # Prefect's id of the flow run that waits; empty: none does
    shown: str  # what whoever decides is shown
    who: str = ""
    via: str = ""
    why: str = ""

    @property
    def told(self) -> str:
        """In a sentence."""
        said = {
            "waiting": "a person's word is awaited",
            "approved": f"{self.who} approved",
            "rejected": f"{self.who} rejected",
            "expired": "nobody answered in time",
            "lapsed": "the evidence has changed since",
        }[self.state]
        return f"{said}: {self.why}" if self.why else said


class ApprovalDecision(Section):
    """What a person says over HTTP."""

    decision: Literal["approve", "reject"]
    evidence: str = Field(min_length=4, max_length=64, description="Digest of what was looked at, or its beginning.")
    why: str = Field("", max_length=MAX_WHY)


def request_approval(
    store: Store, case: str, evidence: str, as_of: datetime, by: str, run: str, shown: str, within: timedelta
) -> Approval:
    """Ask for a word on this evidence, once; what was asked about other evidence of the case lapses."""
    begun, this = now(), approvals.c.case == case
    same, others = this & (approvals.c.evidence == evidence), this & (approvals.c.evidence != evidence)
    waits = {"asked_at": begun, "expires_at": begun + within.total_seconds(), "state": "waiting"}
    asked = {
        "case": case,
        "evidence": evidence,
        "as_of": as_of.isoformat(),
        "asked_by": by[:MAX_PERSON],
        "shown": shown,
    }
    with store.writing() as to:
        to.execute(update(approvals).where(others, approvals.c.state == "waiting").values(state="lapsed"))
        known = to.execute(select(approvals.c.state).where(same)).scalar()
        if known is None:
            to.execute(insert(approvals).values(**asked, **waits, run=run, who="", via="", why=""))
        else:
            to.execute(update(approvals).where(same).values(run=run, **(waits if known == "lapsed" else {})))
    return next(each for each in list_approvals(store, case) if each.evidence == evidence)


def list_approvals(store: Store, case: str | None = None) -> list[Approval]:
    """All that was ever asked, of a case or of all, latest first."""
    wanted = select(approvals).order_by(approvals.c.asked_at.desc())
    with store.reading() as of:
        rows = of.execute(wanted.where(approvals.c.case == case) if case else wanted).mappings().all()
    return [_approval(dict(row)) for row in rows]


def decide(store: Store, case: str, evidence: str, approves: bool, who: str, via: str, why: str) -> Approval:
    """Write down a person's word on what waits; `evidence` is its digest or the beginning of it.

    Raises: InputError when nothing waits, something else does, or they asked for the run themselves.
    """
    waiting = next((each for each in list_approvals(store, case) if each.state == "waiting"), None)
    if waiting is None:
        raise InputError(f"Nothing of {case} waits for a person's word.", todo="driftline status")
    if len(evidence) < 4 or not waiting.evidence.startswith(evidence):
        raise InputError(
            "The evidence has changed, or is another.",
            where=case,
            found=evidence,
            allowed=waiting.evidence[:12],
            todo="Look at what is asked now, and decide on that.",
        )
    if not who.strip():
        raise InputError(
            "Nobody knows who decides.",
            where=case,
            allowed="a person: the system's user at a terminal, the owner of an API key over HTTP",
            todo="driftline keys owner KEY NAME",
        )
    if len(who) > MAX_PERSON or len(why) > MAX_WHY:
        allowed = f"a name of {MAX_PERSON} characters, a reason of {MAX_WHY:,}"
        raise InputError("This is too long.", where=case, found=f"{len(who)}, {len(why):,}", allowed=allowed)
    if same_person(who, waiting.asked_by):
        raise InputError(
            "Nobody decides on their own run.",
            where=case,
            found=f"{who} asked for it",
            allowed="another person",
            todo="Ask somebody else to look at it.",
        )
    state = "approved" if approves else "rejected"
    with store.writing() as to:
        same = (approvals.c.case == case) & (approvals.c.evidence == waiting.evidence)
        done = to.execute(
            update(approvals)
            .where(same, approvals.c.state == "waiting")
            .values(state=state, who=who.strip(), via=via, why=why, decided_at=now())
        )
    if not done.rowcount:
        raise InputError("Somebody else has just decided.", where=case, todo="driftline status")
    return next(each for each in list_approvals(store, case) if each.evidence == waiting.evidence)


def same_person(one: str, other: str) -> bool:
    """Whether two names are one person's: however they are written in upper and lower case, blanks and forms."""
    first, second = (" ".join(unicodedata.normalize("NFKC", name).casefold().split()) for name in (one, other))
    return first == second


def find_by_run(store: Store, run: str) -> Approval | None:
    """What a flow run has asked last."""
    return next((each for each in list_approvals(store) if run and each.run == run), None)


def _approval(row: dict[str, Any]) -> Approval:
    row.pop("decided_at")
    if row["state"] == "waiting" and row["expires_at"] < now():
        row["state"] = "expired"
    for name in ("asked_at", "expires_at"):
        row[name] = datetime.fromtimestamp(row[name], UTC)
    return Approval(**row)
