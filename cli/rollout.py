"""`driftline rollout`, `promote`, `rollback`: how traffic is split between releases, and its history."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime

from services.rollout import history, shares
from services.rollout.champion_sync import ensure_running, roll_back
from services.rollout.plan import plan_progress
from services.rollout.routing import ARM, CANARY, SHADOW
from services.store.database import Store
from tasks.core.console import PlainTable, console
from tasks.core.errors import InputError
from tasks.core.settings import Settings, settings

MANUAL = "by command"  # the reason in the history of a change that a person made


def show(case: str) -> None:
    """Print the traffic split of a case and its recent changes."""
    with closing(Store(settings())) as store:
        current, events = history.rollout_history(store, case)
        progress = plan_progress(store, case)
    if not current:
        console.print(f"{case} has no rollout yet: driftline up, then driftline run {case}")
        return
    shares = PlainTable("role", "release", "share", "arm")
    others = sum(share["percent"] for share in current if share["role"] in (CANARY, ARM))
    for share in current:
        percent = 100 - others if share["role"] == "champion" else share["percent"]
        shares.add_row(share["role"], share["digest"][:12], f"{percent:g} %", share["arm"])
    console.print(shares)
    for sentence in progress:
        console.print(sentence)
    moves = PlainTable("when", "what", "release", "champion", "why")
    for move in events:
        when = f"{datetime.fromtimestamp(move['at'], UTC):%Y-%m-%d %H:%M:%S}"
        moves.add_row(when, move["action"], move["digest"][:12], move["champion"][:12], move["reason"])
    console.print(moves)


def share(case: str, canary: str | None, shadow: str | None, arm: str | None, percent: float, stop: str | None) -> None:
    """Set or remove a release's share beside the champion.

    Raises: InputError.
    """
    config = settings()
    with closing(Store(config)) as store:
        for role, name in ((CANARY, canary), (SHADOW, shadow), (ARM, arm)):
            if name:
                label, _, reference = name.rpartition("=") if role == ARM else ("", "", name)
                digest = _running(config, store, case, reference)
                share = 100.0 if role == SHADOW else percent
                label = label or (reference if role == ARM else "")
                shares.set_share(store, case, shares.ShareSpec(digest, role, share, label), MANUAL)
        if stop:
            shares.remove_share(store, case, history.find_release(store, case, stop) or stop, MANUAL)
    show(case)


def promote(case: str, reference: str | None) -> None:
    """Promote a release to champion: the canary, unless another one is named.

    Raises: InputError.
    """
    config = settings()
    with closing(Store(config)) as store:
        if reference is None:
            canaries = [share["digest"] for share in history.rollout_history(store, case)[0] if share["role"] == CANARY]
            if not canaries:
                raise InputError(f"{case} has no canary to promote.", todo=f"driftline promote {case} --release DIGEST")
            reference = canaries[0]
        digest = _running(config, store, case, reference)
        shares.promote(store, case, digest, MANUAL)
    console.print(f"{digest[:12]} is champion of {case}")
    _move_alias(config, case, digest)


def rollback(case: str, to: str | None) -> None:
    """Roll back to the previous champion, or to any earlier release; start it first if it is stopped.

    Raises: InputError.
    """
    with console.status(f"rolling {case} back ..."):
        release = roll_back(case, to, MANUAL, settings())
    console.print(f"{release.digest[:12]} is champion of {case} again")


def _running(config: Settings, store: Store, case: str, reference: str) -> str:
    """The digest of a running release, started first if it was stopped."""
    with console.status(f"serving {reference} ..."):
        return ensure_running(store, case, reference, config)


def _move_alias(config: Settings, case: str, digest: str) -> None:
    """Move the registry alias: last, since it takes seconds and no traffic depends on it."""
    from tasks.release.registry import promote, resolve_release

    promote(config.tracking, resolve_release(config.tracking, config.state, case, digest))
