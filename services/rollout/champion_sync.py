"""Synchronises a case's champion between the gateway and the registry; the gateway's traffic decides."""

from __future__ import annotations

import time
from contextlib import closing

from services.rollout.config import Plan
from services.rollout.history import champion_history, find_release, is_running
from services.rollout.plan import begin_plan
from services.rollout.shares import PROPAGATION_SECONDS, champion_of, promote, rollback, sync_endpoints, upsert_release
from services.runtime import stack
from services.store.database import Store
from tasks.core.settings import Settings
from tasks.release.results import Release
from tasks.release.seal import MANIFEST, read_manifest, release_folder


def start_rollout(release: Release, plan: Plan | None, settings: Settings) -> bool:
    """Make a release champion and return True; or begin its plan, if there is one and the stack runs."""
    with closing(Store(settings)) as store:
        upsert_release(store, read_manifest(release.folder))
        sync_endpoints(store, settings)
        with store.reading() as connection:
            before = champion_of(connection, release.case)
        if plan and before not in (None, release.digest) and stack.is_running(settings):
            begin_plan(store, release.case, release.digest, plan)
            return False
        promote(store, release.case, release.digest, "released")
        return True


def register_champion(release: Release, settings: Settings) -> None:
    """Make the registry's champion the gateway's, if the gateway has none."""
    if champion_at_gateway(release.case, settings) is None:
        start_rollout(release, None, settings)


def champion_at_gateway(case: str, settings: Settings) -> str | None:
    """The digest of the champion at the gateway."""
    with closing(Store(settings)) as store, store.reading() as connection:
        return champion_of(connection, case)


def reconcile(case: str, settings: Settings) -> None:
    """Make the gateway's champion the registry's: a plan may have completed or rolled back since."""
    digest = champion_at_gateway(case, settings)
    if digest is None:
        return
    from tasks.release.registry import load_champion, promote, resolve_release

    known = load_champion(settings.tracking, settings.state, case)
    if known and known.digest != digest:
        promote(settings.tracking, resolve_release(settings.tracking, settings.state, case, digest))


def ensure_running(store: Store, case: str, reference: str, settings: Settings) -> str:
    """The digest of a release by reference; a release without a process is started first.

    Raises: InputError when there is none; Unavailable when it can't be started.
    """
    from tasks.release.registry import read_release, resolve_release

    known = find_release(store, case, reference)
    if known and is_running(store, known):
        return known
    folder = release_folder(settings.state, case, known or "?")
    if (folder / MANIFEST).is_file():
        release = read_release(folder, "")  # its version is unknown then: the registry takes seconds to answer
    else:
        release = resolve_release(settings.tracking, settings.state, case, reference)
    stack.serve_release(settings, release)
    upsert_release(store, read_manifest(release.folder))
    sync_endpoints(store, settings)
    return release.digest


def roll_back(case: str, to: str | None, why: str, settings: Settings) -> Release:
    """Make an earlier release champion again, first at the gateway, then in the registry; wait for all gateways.

    Without `to`, it is the previous champion. While the stack is down, no process is started.
    Raises: InputError when there is no such release; Unavailable when it can't be started.
    """
    from tasks.release.registry import promote as move_alias
    from tasks.release.registry import resolve_release

    with closing(Store(settings)) as store:
        with store.reading() as connection:
            wanted = to or next(iter(champion_history(connection, case)[1:]), None)
        if wanted and not stack.is_running(settings):
            digest = resolve_release(settings.tracking, settings.state, case, wanted).digest
            promote(store, case, digest, why, "rollback")
        else:
            digest = rollback(store, case, ensure_running(store, case, wanted, settings) if wanted else None, why)
    seen = time.monotonic() + PROPAGATION_SECONDS
    release = resolve_release(settings.tracking, settings.state, case, digest)
    move_alias(settings.tracking, release)
    time.sleep(max(0.0, seen - time.monotonic()))
    return release
