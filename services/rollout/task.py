"""Prefect tasks of rollouts."""

from __future__ import annotations

import time

from services.rollout.config import Plan
from tasks.core.prefect import stage
from tasks.core.settings import Settings
from tasks.release.results import Release


@stage("send it the traffic", lambda all_of_it: "all of it" if all_of_it else "by its plan")
def start_rollout(release: Release, plan: Plan | None, settings: Settings) -> bool:
    """Route all of the case's traffic to the release and show it, or begin its plan beside the champion."""
    from services.rollout.champion_sync import start_rollout

    return start_rollout(release, plan, settings)


@stage("roll back to {to:.12}", lambda release: f"version {release.version}")
def roll_back(case: str, to: str, why: str, settings: Settings) -> Release:
    """Make an earlier release the champion again, at the gateway and in the registry."""
    from services.rollout.champion_sync import roll_back

    return roll_back(case, to, why, settings)


@stage("stop unused releases", lambda names: ", ".join(names) or "nothing")
def retire_unused_releases(release: Release, settings: Settings) -> list[str]:
    """Stop the releases of a case that have no share and are not among the warm earlier champions."""
    from services.rollout.history import releases_to_keep_warm
    from services.rollout.shares import PROPAGATION_SECONDS, sync_endpoints
    from services.runtime import stack
    from services.store.database import Store

    if not stack.is_running(settings):
        return []
    store = Store(settings)
    keep = releases_to_keep_warm(store, release.case, settings.gateway_warm)
    time.sleep(PROPAGATION_SECONDS)  # no gateway routes requests to them any more
    stopped = stack.retire_releases(settings, release.case, keep)
    sync_endpoints(store, settings)
    store.close()
    return stopped


def reconcile_champion(case: str, settings: Settings) -> None:
    """Make the gateway's champion the registry's."""
    from services.rollout.champion_sync import reconcile

    reconcile(case, settings)
