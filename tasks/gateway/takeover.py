"""How the gateway and the registry agree on a case's champion: both are told, the traffic decides."""

from __future__ import annotations

from contextlib import closing

from tasks.foundation.settings import Settings
from tasks.gateway.config import Plan
from tasks.gateway.plan import begin
from tasks.gateway.rollout import champion_of, follow_stack, know, promote
from tasks.gateway.store import Store
from tasks.release.results import Release
from tasks.release.seal import read_manifest
from tasks.serve import stack


def take_over(release: Release, plan: Plan | None, settings: Settings) -> bool:
    """Give a release its case's traffic, and say so; or begin its plan, if there is one and processes to carry it."""
    with closing(Store(settings)) as store:
        know(store, read_manifest(release.folder))
        follow_stack(store, settings)
        with store.reading() as of:
            before = champion_of(of, release.case)
        if plan and before not in (None, release.digest) and stack.runs(settings):
            begin(store, release.case, release.digest, plan)
            return False
        promote(store, release.case, release.digest, "released")
        return True


def introduce(release: Release, settings: Settings) -> None:
    """Tell the gateway of the registry's champion, where it knows of none."""
    if champion_at_gateway(release.case, settings) is None:
        take_over(release, None, settings)


def champion_at_gateway(case: str, settings: Settings) -> str | None:
    """The digest of the release that has the traffic."""
    with closing(Store(settings)) as store, store.reading() as of:
        return champion_of(of, case)


def agree(case: str, settings: Settings) -> None:
    """Have the registry's champion be the one that the traffic went to: a plan may have ended, or gone back."""
    digest = champion_at_gateway(case, settings)
    if digest is None:
        return
    from tasks.release.registry import champion, find, promote

    known = champion(settings.tracking, settings.state, case)
    if known and known.digest != digest:
        promote(settings.tracking, find(settings.tracking, settings.state, case, digest))
