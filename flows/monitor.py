"""The champion against the world as it has become."""

from __future__ import annotations

from prefect import flow

from flows.case import tabular
from flows.entry import Opened, Request, opened, run_name
from flows.predict import predict_steps
from flows.prepare import prepare_steps
from tasks.data.results import Snapshot
from tasks.features.task import window_frame
from tasks.gateway.task import agree_on_champion
from tasks.monitor.results import Decision
from tasks.monitor.task import decide_on, measure_window
from tasks.release.task import require_champion


@flow(name="monitor", flow_run_name=run_name)
def monitor(request: Request) -> Decision:
    """Predict what is missing, join the outcomes that have arrived, measure, and decide: ignore, alert or retrain."""
    with opened(request) as run:
        tabular(run.case)
        return monitor_steps(run, prepare_steps(run))


def monitor_steps(run: Opened, snapshot: Snapshot) -> Decision:
    case, here = tabular(run.case), run.settings
    agree_on_champion(case.name, here)
    champion = require_champion(case.name, here.tracking, here.state)
    predictions = predict_steps(run, snapshot, champion)
    start = max(champion.as_of, run.as_of - case.monitor.window)
    frame = window_frame(
        case.features, case.target.column, case.evaluate.slices, snapshot, here.state, start, run.as_of
    )
    signal = measure_window(
        champion, case.target, case.monitor, predictions, frame, start, run.as_of, here.data / "predictions", here.state
    )
    return decide_on(signal, case.monitor)
