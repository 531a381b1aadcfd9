"""The champion's predictions since its release."""

from __future__ import annotations

from prefect import flow

from flows.champion_steps import current_champion, predict_since
from flows.run_context import Request, run_context, run_name
from flows.steps import prepare_snapshot
from tasks.predict.results import Predictions


@flow(name="predict", flow_run_name=run_name)
def predict(request: Request) -> Predictions:
    """Score each example between the champion's as-of and this one with what was known at its own moment."""
    with run_context(request) as run:
        snapshot, champion = prepare_snapshot(run), current_champion(run)
        return predict_since(run, snapshot, champion, champion.as_of)
