"""The champion's answers to what was asked lately."""

from __future__ import annotations

from prefect import flow

from flows.case import tabular
from flows.entry import Opened, Request, opened, run_name
from flows.prepare import prepare_steps
from tasks.data.results import Snapshot
from tasks.features.task import window_frame
from tasks.predict.results import Predictions
from tasks.predict.task import predict_window
from tasks.release.results import Release
from tasks.release.task import require_champion


@flow(name="predict", flow_run_name=run_name)
def predict(request: Request) -> Predictions:
    """Score every example between the champion's as-of and this one, each with what was known at its own moment."""
    with opened(request) as run:
        tabular(run.case)
        return predict_steps(
            run, prepare_steps(run), require_champion(run.case.name, run.settings.tracking, run.settings.state)
        )


def predict_steps(run: Opened, snapshot: Snapshot, champion: Release) -> Predictions:
    case, here = tabular(run.case), run.settings
    frame = window_frame(
        case.features,
        case.target.column,
        case.evaluate.slices,
        snapshot,
        here.state,
        champion.as_of,
        run.as_of,
    )
    return predict_window(champion, case.name, frame, run.as_of, here.data / "predictions")
