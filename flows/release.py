"""Data to a candidate that passes its gates, and to a release that serves."""

from __future__ import annotations

from prefect import flow

from flows.run_context import Request, run_context, run_name
from flows.search import with_search
from flows.steps import prepare_snapshot, release_candidate, train_and_evaluate
from tasks.release.results import Release


@flow(name="release", flow_run_name=run_name)
def release(request: Request) -> Release:
    """Prepare, train, evaluate; then seal, package, serve, smoke-test, and only then move the champion alias."""
    with run_context(request) as run:
        run = with_search(run)
        return release_candidate(run, train_and_evaluate(run, prepare_snapshot(run)))
