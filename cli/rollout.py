"""`driftline rollout`, `promote`, `rollback`: which release answers, and who decided so when."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime

from services.rollout import history, shares
from services.rollout.champion_sync import ensure_running, roll_back
from services.rollout.routing import ARM, CANARY, SHADOW
from services.store.database import Store
from tasks.core.console import PlainTable, console
from tasks.core.errors import InputError
from tasks.core.settings import Settings, settings


def show(case: str) -> None:
    """Print the shares of a case and its last moves."""
    with closing(Store(settings())) as store:
        held, moved = history.rollout_history(store, case)
    if not held:
        console.print(f"{case} has no rollout yet: driftline up, then driftline run {case}")
        return
    shares = PlainTable("role", "release", "share", "arm")
    others = sum(share["percent"] for share in held if share["role"] in (CANARY, ARM))
    for share in held:
        percent = 100 - others if share["role"] == "champion" else share["percent"]
        shares.add_row(share["role"], share["digest"][:12], f"{percent:g} %", share["arm"])
    console.print(shares)
    moves = PlainTable("when", "what", "release", "champion", "why")
    for move in moved:
        when = f"{datetime.fromtimestamp(move['at'], UTC):%Y-%m-%d %H:%M:%S}"
        moves.add_row(when, move["action"], move["digest"][:12], move["champion"][:12], move["reason"])
    console.print(moves)


def share(case: str, canary: str | None, shadow: str | None, arm: str | None, percent: float, stop: str | None) -> None:
    """Give a release a share beside the champion, or take it.

    Raises: InputError.
    """
    here = settings()
    with closing(Store(here)) as store:
        for role, name in ((CANARY, canary), (SHADOW, shadow), (ARM, arm)):
            if name:
                label, _, reference = name.rpartition("=") if role == ARM else ("", "", name)
                digest = _running(here, store, case, reference)
                share = 100.0 if role == SHADOW else percent
                shares.set_share(store, case, digest, role, share, label or (reference if role == ARM else ""), "asked")
        if stop:
            shares.remove_share(store, case, history.find_release(store, case, stop) or stop, "asked")
    show(case)


def promote(case: str, reference: str | None) -> None:
    """Make a release the champion: the canary, unless another one is named.

    Raises: InputError.
    """
    here = settings()
    with closing(Store(here)) as store:
        if reference is None:
            canaries = [held["digest"] for held in history.rollout_history(store, case)[0] if held["role"] == CANARY]
            if not canaries:
                raise InputError(f"{case} has no canary to promote.", todo=f"driftline promote {case} --release DIGEST")
            reference = canaries[0]
        digest = _running(here, store, case, reference)
        shares.promote(store, case, digest, "asked")
    console.print(f"{digest[:12]} is champion of {case}")
    _move_alias(here, case, digest)


def rollback(case: str, to: str | None) -> None:
    """Go back to the champion before, or to any earlier release; one that does not run is started first.

    Raises: InputError.
    """
    with console.status(f"rolling {case} back ..."):
        release = roll_back(case, to, "asked", settings())
    console.print(f"{release.digest[:12]} is champion of {case} again")


def _running(here: Settings, store: Store, case: str, reference: str) -> str:
    """The digest of a release that answers, started if it did not."""
    with console.status(f"serving {reference} ..."):
        return ensure_running(store, case, reference, here)


def _move_alias(here: Settings, case: str, digest: str) -> None:
    """Have the registry agree: last, since it takes seconds, and no traffic depends on it."""
    from tasks.release.registry import find, promote

    promote(here.tracking, find(here.tracking, here.state, case, digest))
