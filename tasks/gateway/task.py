"""Prefect tasks of the gateway room."""

from __future__ import annotations

from tasks.foundation.settings import Settings
from tasks.foundation.task import stage
from tasks.gateway.config import Plan
from tasks.release.results import Release


@stage("send it the traffic", lambda said: said or "the stack is down", cache=False)
def send_traffic(release: Release, plan: Plan | None, settings: Settings) -> str:
    """If a process answers as the release: give it all of the traffic, or begin its plan."""
    from tasks.gateway.plan import begin
    from tasks.gateway.rollout import champion_of, follow_stack, know, promote
    from tasks.gateway.store import Store
    from tasks.release.seal import read_manifest
    from tasks.serve import stack

    if not stack.runs(settings):
        return ""
    store = Store(settings)
    know(store, read_manifest(release.folder))
    follow_stack(store, settings)
    with store.reading() as of:
        champion = champion_of(of, release.case)
    if plan is None or champion in (None, release.digest):
        promote(store, release.case, release.digest, "released")
        return "all of it"
    begin(store, release.case, release.digest, plan)
    return f"by {len(plan.steps)} steps"


@stage("retire what nobody needs", lambda names: ", ".join(names) or "nothing", cache=False)
def retire_others(release: Release, settings: Settings) -> list[str]:
    """Stop the case's releases that have no share of the traffic and are not kept to roll back to."""
    from tasks.gateway.history import warm
    from tasks.gateway.rollout import follow_stack
    from tasks.gateway.store import Store
    from tasks.serve import stack

    if not stack.runs(settings):
        return []
    store = Store(settings)
    stopped = stack.retire(settings, release.case, warm(store, release.case, settings.gateway_warm))
    follow_stack(store, settings)
    return stopped
