"""Changes of who gets what of a case's traffic: each one transaction, which every gateway sees within a second."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, insert, or_, select, update

from services.rollout.history import champion_history
from services.rollout.routing import ARM, CANARY, CHAMPION, SHADOW
from services.runtime.process_specs import release_program_name, release_socket
from services.runtime.supervision import Supervisor
from services.store.database import Store, endpoints, now, plans, releases, rollout_events, shares
from tasks.core.errors import InputError
from tasks.core.settings import Settings
from tasks.core.sockets import UNIX_SCHEME
from tasks.release.config import Price

PROPAGATION_SECONDS = 1.0  # seconds after which every gateway goes by a change


def upsert_release(store: Store, manifest: Mapping[str, Any]) -> None:
    """Take a release's facts over from its manifest."""
    sealed = manifest["sealed"]
    serving = sealed.get("serving", {})
    facts = {
        "kind": sealed["kind"],
        "price": sealed.get("price", Price().model_dump()),
        "entities": sorted(sealed.get("entities", {})),
        "context": sealed.get("context", 0),
        "answer_tokens": serving.get("answer_tokens", 0),
    }
    with store.changing() as to:
        if not to.execute(
            update(releases).where(releases.c.digest == manifest["digest"]).values(metadata=facts)
        ).rowcount:
            to.execute(insert(releases).values(digest=manifest["digest"], case=sealed["case"], metadata=facts))


def sync_endpoints(store: Store, settings: Settings) -> None:
    """Have the local stack's processes, wherever they listen now, answer for their releases; no others of this stack.

    Where several stacks share the database, the sockets of the others stay; ports are those of an earlier version.
    """
    programs = Supervisor(settings.state).programs()
    sockets = f"{UNIX_SCHEME}{release_socket(settings.state, '').parent}/" if settings.gateway_store else UNIX_SCHEME
    with store.changing() as to:
        ours = [endpoints.c.address.startswith(form, autoescape=True) for form in (sockets, f"http://{settings.host}:")]
        to.execute(delete(endpoints).where(or_(*ours)))
        for digest, case in to.execute(select(releases.c.digest, releases.c.case)).all():
            if program := programs.get(release_program_name(case, digest)):
                to.execute(insert(endpoints).values(digest=digest, address=program.address))


def promote(store: Store, case: str, digest: str, why: str, what: str = "promote") -> None:
    """Make a known release the champion, whatever share it had; a plan of the case ends."""
    with store.changing() as to:
        set_champion(to, case, digest, why, what)


def rollback(store: Store, case: str, to_digest: str | None, why: str) -> str:
    """Make an earlier release the champion again, and end what is being rolled out; give its digest.

    Raises: InputError when there is none, or no process answers as it.
    """
    with store.changing() as to:
        target = to_digest or next(iter(champion_history(to, case)[1:]), None)
        running = set(to.execute(select(endpoints.c.digest)).scalars())
        if target is None or target not in running:
            raise InputError(
                f"There is nothing to roll {case} back to."
                if target is None
                else "No process answers as that release.",
                found=target[:12] if target else "one champion only",
                allowed=", ".join(digest[:12] for digest in champion_history(to, case) if digest in running) or "none",
                todo=f"driftline rollout {case} lists the releases there are.",
            )
        to.execute(delete(shares).where(shares.c.case == case, shares.c.role.in_((CANARY, SHADOW))))
        set_champion(to, case, target, why, "rollback")
    return target


def set_share(store: Store, case: str, digest: str, role: str, percent: float, arm: str, why: str) -> None:
    """Let a release have a share beside the champion.

    Raises: InputError when the case has no champion, or the shares come to more than all.
    """
    with store.changing() as to:
        write_share(to, case, digest, role, percent, arm, why)


def remove_share(store: Store, case: str, digest: str, why: str) -> None:
    """End a release's share; the champion answers its users.

    Raises: InputError when it has none, or is the champion.
    """
    with store.changing() as to:
        delete_share(to, case, digest, why, "stop")


def write_share(to: Connection, case: str, digest: str, role: str, percent: float, arm: str, why: str) -> None:
    champion = champion_of(to, case)
    if champion is None or champion == digest:
        raise InputError(
            f"{case} has no champion to stand beside." if champion is None else "That release is the champion already.",
            todo=f"driftline run {case}"
            if champion is None
            else f"driftline rollout {case} tells who has which share.",
        )
    others = select(shares.c.percent).where(
        shares.c.case == case, shares.c.digest != digest, shares.c.role.in_((CANARY, ARM))
    )
    taken = sum(to.execute(others).scalars())
    if role != SHADOW and percent + taken > 100:
        raise InputError(
            "The shares come to more than all.", found=f"{percent:g} % beside {taken:g} %", allowed="100 %"
        )
    _put(to, case, digest, role, percent, arm)
    record_rollout_event(to, case, role, digest, champion, why)


def delete_share(to: Connection, case: str, digest: str, why: str, what: str) -> None:
    gone = delete(shares).where(shares.c.case == case, shares.c.digest == digest, shares.c.role != CHAMPION)
    if not to.execute(gone).rowcount:
        raise InputError("That release has no share beside the champion.", found=digest[:12])
    to.execute(delete(plans).where(plans.c.case == case, plans.c.digest == digest))
    record_rollout_event(to, case, what, digest, champion_of(to, case) or "", why)


def set_champion(to: Connection, case: str, digest: str, why: str, what: str) -> None:
    if champion_of(to, case) != digest:
        to.execute(delete(shares).where(shares.c.case == case, shares.c.role == CHAMPION))
        _put(to, case, digest, CHAMPION, 100.0, "")
        record_rollout_event(to, case, what, digest, digest, why)
    to.execute(delete(plans).where(plans.c.case == case))


def record_rollout_event(to: Connection, case: str, what: str, digest: str, champion: str, why: str) -> None:
    to.execute(
        insert(rollout_events).values(case=case, at=now(), action=what, digest=digest, champion=champion, reason=why)
    )


def _put(to: Connection, case: str, digest: str, role: str, percent: float, arm: str) -> None:
    to.execute(delete(shares).where(shares.c.case == case, shares.c.digest == digest))
    to.execute(insert(shares).values(case=case, digest=digest, role=role, percent=percent, arm=arm))


def champion_of(to: Connection, case: str) -> str | None:
    """The digest of a case's champion."""
    return to.execute(select(shares.c.digest).where(shares.c.case == case, shares.c.role == CHAMPION)).scalar()
