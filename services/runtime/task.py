"""Prefect tasks that package and serve a release."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from services.runtime.results import Served
from tasks.core.errors import DriftlineError
from tasks.core.prefect import stage
from tasks.core.settings import ROOT, Settings, environment
from tasks.release.results import Release


def is_stack_running(settings: Settings) -> bool:
    """Does the local stack run? Then a release stays served."""
    from services.runtime import stack

    return stack.is_running(settings)


@stage("package the Bento", str)
def package_release(folder: Path, state: Path) -> str:
    """Build the Bento unless it exists."""
    from services.serving.package import package

    return package(folder, state / "bentoml", ROOT / "requirements.lock")


@stage("serve and smoke-test", lambda s: f"{s.metrics['ms_per_request']:.1f} ms a request {s.address}")
def serve_and_smoke(release: Release, online: Path | None, moment: datetime | None, settings: Settings) -> Served:
    """Serve the Bento and require that it answers over HTTP as it did offline; the champion goes on serving.

    In a running local stack the process stays, supervised; otherwise it stops after the test. Features that a request
    leaves out are looked up in the repository `online` as of `moment`, or as of the request.
    """
    from services.runtime import stack
    from services.runtime.process_specs import store_lookup
    from services.serving.smoke import smoke, smoke_bento
    from tasks.language.released_model import require_server

    if release.kind == "llm":
        require_server(release.folder)
    if not is_stack_running(settings):
        store_lookup(settings, release, online, moment)  # for the next `driftline up`
        log = settings.state / "logs" / f"smoke-{release.case}.log"
        return Served(address="", metrics=smoke_bento(release.folder, release.bento, environment(settings), log))
    address = stack.serve_release(settings, release, online, moment)
    try:
        return Served(address=address, metrics=smoke(release.folder, address, stack.release_log(settings, release)))
    except DriftlineError:
        stack.stop_release(settings, release)
        raise
