"""What was in production at a moment of the past, by the audit records of the case."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from services.rollout.routing import ARM
from services.store.audit import AuditEvent, audit_events
from services.store.database import Store
from tasks.core.config import Result
from tasks.core.errors import InputError

PROMOTE, ROLLBACK, REMOVE = "release.promote", "release.rollback", "case.remove"
SET, DROP = "share.set", "share.remove"


class PastShare(Result):
    """A release's share beside the champion."""

    digest: str
    role: str
    percent: float


class Production(Result):
    """What answered a case from a moment on, and the decision that made it so."""

    at: datetime
    champion: str  # digest; empty: none
    shares: tuple[PastShare, ...]
    by: str
    actor_kind: str
    action: str
    reason: str
    audit_record: int


def production_changes(store: Store, case: str) -> list[Production]:
    """Every change of what answers a case, oldest first.

    Raises: InputError when there was none.
    """
    changes: list[Production] = []
    champion, shares = "", dict[str, PastShare]()
    for event in audit_events(store, case, None, PROMOTE, ROLLBACK, REMOVE, SET, DROP):
        champion, shares = _apply(event, champion, shares)
        changes.append(
            Production(
                at=event.at,
                champion=champion,
                shares=tuple(shares.values()),
                by=event.by,
                actor_kind=event.actor_kind,
                action=event.action,
                reason=str(event.details.get("reason", "")),
                audit_record=event.id,
            )
        )
    if not changes:
        raise InputError(f"Nothing of {case} was ever in production.", where=case, todo=f"driftline run {case}")
    return changes


def production_at(case: str, changes: Sequence[Production], moment: datetime) -> Production:
    """What answered at this moment. Raises: InputError when nothing did yet."""
    before = [change for change in changes if change.at <= moment]
    if not before:
        raise InputError(
            f"Nothing of {case} was in production then.",
            where="--at",
            found=moment.isoformat(),
            allowed=f"from {changes[0].at:%Y-%m-%d %H:%M:%S} UTC on",
        )
    return before[-1]


def _apply(event: AuditEvent, champion: str, shares: dict[str, PastShare]) -> tuple[str, dict[str, PastShare]]:
    """Champion and shares after an event."""
    others = {digest: share for digest, share in shares.items() if digest != event.subject}
    if event.action == REMOVE:
        return "", {}
    if event.action == SET:
        role, percent = str(event.details.get("role", "")), float(event.details.get("percent") or 0)
        others[event.subject] = PastShare(digest=event.subject, role=role, percent=percent)
        return champion, others
    if event.action == DROP:
        return champion, others
    if event.action == ROLLBACK and event.details.get("before") is None:
        return champion, others  # a canary was rolled back: the champion stays
    if event.action == ROLLBACK:
        others = {digest: share for digest, share in others.items() if share.role == ARM}
    return event.subject, others
