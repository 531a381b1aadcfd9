"""Prefect tasks of the gateway room."""

from __future__ import annotations

import time

from tasks.foundation.settings import Settings
from tasks.foundation.task import stage
from tasks.gateway.config import Plan
from tasks.release.results import Release


@stage("send it the traffic", lambda all_of_it: "all of it" if all_of_it else "by its plan", cache=False)
def send_traffic(release: Release, plan: Plan | None, settings: Settings) -> bool:
    """Give the release all of its case's traffic, and say so, or begin its plan beside the champion."""
    from tasks.gateway.takeover import take_over

    return take_over(release, plan, settings)


@stage("retire what nobody needs", lambda names: ", ".join(names) or "nothing", cache=False)
def retire_others(release: Release, settings: Settings) -> list[str]:
    """Stop the case's releases that have no share of the traffic and are not kept to roll back to."""
    from tasks.gateway.history import warm
    from tasks.gateway.memory import EVERY
    from tasks.gateway.rollout import follow_stack
    from tasks.gateway.store import Store
    from tasks.serve import stack

    if not stack.runs(settings):
        return []
    store = Store(settings)
    keep = warm(store, release.case, settings.gateway_warm)
    time.sleep(2 * EVERY)  # by then no gateway sends anybody to the others
    stopped = stack.retire(settings, release.case, keep)
    follow_stack(store, settings)
    store.close()
    return stopped


def agree_on_champion(case: str, settings: Settings) -> None:
    """Have the registry know which release the traffic went to."""
    from tasks.gateway.takeover import agree

    agree(case, settings)
