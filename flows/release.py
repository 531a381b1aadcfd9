"""A candidate that passed its gates to a release that answers."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.case import TabularCase
from flows.deployed.approval import require_approval
from flows.prepare import prepare_steps
from flows.run_context import Request, RunContext, run_context, run_name
from flows.train import TrainResult, train_steps
from services.rollout.task import retire_others, send_traffic
from services.runtime.task import is_stack_running, package_release, serve_and_smoke
from tasks.data.language.embedder_files import find_embedder
from tasks.data.task import open_model
from tasks.features.task import fill_online_store
from tasks.release.results import Release
from tasks.release.task import (
    find_champion_of_candidate,
    promote_release,
    register_release,
    require_promotion,
    seal_language_release,
    seal_table_release,
)


@flow(name="release", flow_run_name=run_name)
def release(request: Request) -> Release:
    """Prepare, train, judge; then seal, package, serve, smoke-test, and only then move the champion alias."""
    with run_context(request) as run:
        return release_steps(run, train_steps(run, prepare_steps(run)))


def release_steps(run: RunContext, trained: TrainResult) -> Release:
    """Raises: GateFailed when the verdict is not to promote; the champion stays."""
    case, here = run.case, run.settings
    # a run started again after the champion alias moved has nothing to release, only to serve where a stack is up
    release = find_champion_of_candidate(trained.candidate, run.lineage, here.tracking, here.state)
    is_new = release is None
    if release is None:
        require_promotion(case.name, trained.verdict)
        require_approval(run, trained)
        folder = seal_steps(run, trained)
        package_release(folder, here.state)
        release = register_release(folder, here.tracking)
    online = None
    if isinstance(case, TabularCase):
        online = fill_online_store(case.features, trained.snapshot, here.state, here.online_store)
    if is_new or is_stack_running(here):
        serve_and_smoke(release, online, run.as_of if run.is_replay else None, here)
    if send_traffic(release, case.rollout, here):
        promote_release(release, here.tracking)
    retire_others(release, here)
    return release


def seal_steps(run: RunContext, trained: TrainResult) -> Path:
    case, state = run.case, run.settings.state
    candidate, verdict, snapshot = trained.candidate, trained.verdict, trained.snapshot
    if isinstance(case, TabularCase):
        return seal_table_release(candidate, verdict, case.target, case.price, run.lineage, snapshot, state)
    base = open_model(case.model, case.folder, state)
    embedder = find_embedder(case.serve.embedder, case.folder) if case.serve.embedder else None
    return seal_language_release(
        candidate, verdict, base, case.talk, case.serve, embedder, case.price, run.lineage, snapshot, state
    )
