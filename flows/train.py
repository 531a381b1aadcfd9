"""A snapshot to an evaluated candidate."""

from __future__ import annotations

from prefect import flow

from flows.run_context import Request, run_context, run_name
from flows.search import with_search
from flows.steps import TrainResult, prepare_snapshot, show_answers, train_and_evaluate


@flow(name="train", flow_run_name=run_name)
def train(request: Request) -> TrainResult:
    """Prepare, build features, train a candidate, and evaluate it against the gates and the champion."""
    with run_context(request) as run:
        run = with_search(run)
        trained = train_and_evaluate(run, prepare_snapshot(run))
        show_answers(run, trained)
        return trained
