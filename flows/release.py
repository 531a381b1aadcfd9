"""A candidate that passed its gates to a release that answers."""

from __future__ import annotations

from prefect import flow

from flows.entry import Opened, Request, opened, run_name
from flows.train import Trained, train_steps
from tasks.release.results import Release
from tasks.release.task import package_release, promote_release, require_promotion, seal_release, smoke_release


@flow(name="release", flow_run_name=run_name)
def release(request: Request) -> Release:
    """Prepare, train, judge; then seal, package, serve, smoke-test, and only then move the champion alias."""
    with opened(request) as run:
        return release_steps(run, train_steps(run))


def release_steps(run: Opened, trained: Trained) -> Release:
    """Raises: GateFailed when the verdict is not to promote; the champion stays."""
    case, here = run.case, run.settings
    require_promotion(case.name, trained.verdict)
    folder = seal_release(
        trained.candidate, trained.verdict, case.target, case.kind, run.lineage, trained.snapshot, here.state
    )
    bento = package_release(folder, here.state)
    smoke_release(folder, bento, here)
    return promote_release(folder, here.tracking)
