"""Changes of a case's traffic shares: each is one transaction; every gateway applies it within a second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, insert, or_, select, update

from services.rollout.history import champion_history
from services.rollout.routing import ARM, CANARY, CHAMPION, SHADOW
from services.runtime.process_specs import release_program_name, release_socket
from services.runtime.supervision import Supervisor
from services.store.audit import record_audit_event
from services.store.database import Store, endpoints, now, plans, releases, rollout_events, shares
from tasks.core.actor import Actor
from tasks.core.errors import InputError
from tasks.core.settings import Settings
from tasks.core.sockets import UNIX_SCHEME
from tasks.guard.sealed_files import guard_digest
from tasks.release.config import Price

PROPAGATION_SECONDS = 1.0  # until every gateway applies a change
AUDIT_ACTIONS = {
    "promote": "release.promote",
    "rollback": "release.rollback",
    "rolled back": "release.rollback",
    "stop": "share.remove",
}


@dataclass(frozen=True)
class ShareSpec:
    """The share of a release beside the champion; `arm` is the label of an A/B arm."""

    digest: str
    role: str
    percent: float = 100.0
    arm: str = ""


@dataclass(frozen=True)
class Change:
    """What a rollout event records of a change; the default is the current actor."""

    action: str
    reason: str
    actor: Actor | None = None


def upsert_release(store: Store, manifest: Mapping[str, Any]) -> None:
    """Copy what the gateway needs of a release from its manifest."""
    sealed = manifest["sealed"]
    serving, prompt = sealed.get("serving", {}), sealed.get("prompt")
    metadata = {
        "kind": sealed["kind"],
        "price": sealed.get("price", Price().model_dump()),
        "entities": sorted(sealed.get("entities", {})),
        "context": sealed.get("context", 0),
        "answer_tokens": serving.get("answer_tokens", 0),
        "guard": guard_digest(sealed.get("files", {})),
        "prompt": f"{prompt['name'] or 'inline'}@{prompt['digest'][:12]}" if prompt else "",
    }
    with store.changing() as connection:
        if not connection.execute(
            update(releases).where(releases.c.digest == manifest["digest"]).values(metadata=metadata)
        ).rowcount:
            connection.execute(
                insert(releases).values(digest=manifest["digest"], case=sealed["case"], metadata=metadata)
            )


def sync_endpoints(store: Store, settings: Settings) -> None:
    """Register the addresses of the local stack's release processes, and remove those of processes that ended.

    The sockets of other stacks that share the database stay. An earlier version used ports.
    """
    programs = Supervisor(settings.state).programs()
    sockets = f"{UNIX_SCHEME}{release_socket(settings.state, '').parent}/" if settings.gateway_store else UNIX_SCHEME
    with store.changing() as connection:
        local = [
            endpoints.c.address.startswith(form, autoescape=True) for form in (sockets, f"http://{settings.host}:")
        ]
        connection.execute(delete(endpoints).where(or_(*local)))
        for digest, case in connection.execute(select(releases.c.digest, releases.c.case)).all():
            if program := programs.get(release_program_name(case, digest)):
                connection.execute(insert(endpoints).values(digest=digest, address=program.address))


def promote(store: Store, case: str, digest: str, reason: str, action: str = "promote") -> None:
    """Make a known release champion; the current plan of the case ends."""
    with store.changing() as connection:
        set_champion(connection, case, digest, Change(action, reason))


def rollback(store: Store, case: str, to_digest: str | None, reason: str) -> str:
    """Make an earlier release champion again, and end the current rollout; return its digest.

    Raises: InputError when there is none, or no process serves it.
    """
    with store.changing() as connection:
        earlier = champion_history(connection, case)
        target = to_digest or next(iter(earlier[1:]), None)
        running = set(connection.execute(select(endpoints.c.digest)).scalars())
        if target is None or target not in running:
            raise InputError(
                f"{case} has no earlier champion." if target is None else "No process serves the release.",
                found=target[:12] if target else "one champion only",
                allowed=", ".join(digest[:12] for digest in earlier if digest in running) or "none",
                todo=f"driftline rollout {case} lists the releases.",
            )
        connection.execute(delete(shares).where(shares.c.case == case, shares.c.role.in_((CANARY, SHADOW))))
        set_champion(connection, case, target, Change("rollback", reason))
    return target


def set_share(store: Store, case: str, share: ShareSpec, reason: str) -> None:
    """Give a release a share beside the champion.

    Raises: InputError when the case has no champion, or the shares sum to more than 100 %.
    """
    with store.changing() as connection:
        write_share(connection, case, share, Change(share.role, reason))


def remove_share(store: Store, case: str, digest: str, reason: str) -> None:
    """Remove a release's share; its users get the champion.

    Raises: InputError when it has none, or is the champion.
    """
    with store.changing() as connection:
        delete_share(connection, case, digest, Change("stop", reason))


def write_share(connection: Connection, case: str, share: ShareSpec, change: Change) -> None:
    """`set_share` within a transaction."""
    champion = champion_of(connection, case)
    if champion is None:
        raise InputError(f"{case} has no champion yet.", todo=f"driftline run {case}")
    if champion == share.digest:
        raise InputError("The release is already champion.", todo=f"driftline rollout {case} lists the shares.")
    others = select(shares.c.percent).where(
        shares.c.case == case, shares.c.digest != share.digest, shares.c.role.in_((CANARY, ARM))
    )
    taken = sum(connection.execute(others).scalars())
    if share.role != SHADOW and share.percent + taken > 100:
        found = f"{share.percent:g} % beside {taken:g} %"
        raise InputError("The shares sum to more than 100 %.", found=found, allowed="100 %")
    _put(connection, case, share)
    _record(connection, case, share.digest, change)
    _audit(connection, case, share.digest, change, role=share.role, percent=share.percent, arm=share.arm)


def delete_share(connection: Connection, case: str, digest: str, change: Change) -> None:
    """`remove_share` within a transaction; the release's plan ends."""
    of_release = delete(shares).where(shares.c.case == case, shares.c.digest == digest, shares.c.role != CHAMPION)
    if not connection.execute(of_release).rowcount:
        raise InputError("The release has no share beside the champion.", found=digest[:12])
    _end_plans(connection, case, change, plans.c.digest == digest)
    _record(connection, case, digest, change)
    _audit(connection, case, digest, change)


def set_champion(connection: Connection, case: str, digest: str, change: Change) -> None:
    """`promote` within a transaction."""
    before = champion_of(connection, case)
    if before != digest:
        connection.execute(delete(shares).where(shares.c.case == case, shares.c.role == CHAMPION))
        _put(connection, case, ShareSpec(digest, CHAMPION))
        _record(connection, case, digest, change)
        _audit(connection, case, digest, change, before=before or "")
    _end_plans(connection, case, change)


def _end_plans(connection: Connection, case: str, change: Change, *where: ColumnElement[bool]) -> None:
    ending = plans.c.case == case, *where
    for digest in connection.execute(select(plans.c.digest).where(*ending)).scalars().all():
        record_audit_event(connection, "plan.end", digest, case=case, actor=change.actor, reason=change.reason)
    connection.execute(delete(plans).where(*ending))


def _record(connection: Connection, case: str, digest: str, change: Change) -> None:
    champion = champion_of(connection, case) or ""
    row = {"at": now(), "action": change.action, "digest": digest, "champion": champion, "reason": change.reason}
    connection.execute(insert(rollout_events).values(case=case, **row))


def _audit(connection: Connection, case: str, digest: str, change: Change, **details: Any) -> None:
    action = AUDIT_ACTIONS.get(change.action, "share.set")
    record_audit_event(connection, action, digest, case=case, actor=change.actor, reason=change.reason, **details)


def _put(connection: Connection, case: str, share: ShareSpec) -> None:
    connection.execute(delete(shares).where(shares.c.case == case, shares.c.digest == share.digest))
    connection.execute(insert(shares).values(case=case, **asdict(share)))


def champion_of(connection: Connection, case: str) -> str | None:
    """The digest of a case's champion."""
    return connection.execute(select(shares.c.digest).where(shares.c.case == case, shares.c.role == CHAMPION)).scalar()
