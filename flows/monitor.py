"""The champion against the world as it has become."""

from __future__ import annotations

from prefect import flow

from flows.case import LanguageCase
from flows.predict import current_champion, examples_since, messages_since, predict_steps
from flows.prepare import prepare_steps
from flows.run_context import Request, RunContext, complete_if_nothing_to_do, run_context, run_name
from services.gateway.task import trace_calls
from tasks.data.results import Snapshot
from tasks.monitor.results import Attempt, Decision
from tasks.monitor.task import announce_decision, decide_on, measure_messages, measure_window
from tasks.release.results import Release
from tasks.release.task import find_predecessor


@flow(name="monitor", flow_run_name=run_name)
def monitor(request: Request) -> Decision:
    """Predict what is missing, join the outcomes that have arrived, measure, and decide what is done about it."""
    with run_context(request) as run:
        return complete_if_nothing_to_do(lambda: monitor_and_announce(run))


def monitor_and_announce(run: RunContext) -> Decision:
    decision = monitor_steps(run, prepare_steps(run), current_champion(run))
    announce_decision(decision)
    return decision


def monitor_steps(
    run: RunContext, snapshot: Snapshot, champion: Release, past: tuple[Release | None, list[Attempt]] | None = None
) -> Decision:
    """Measure and decide. `past` is the champion before and what was attempted; unless given, the case's own."""
    case, here, out = run.case, run.settings, run.settings.data / "predictions"
    start = max(champion.as_of, run.as_of - case.monitor.window)
    predictions = predict_steps(run, snapshot, champion, start)
    trace_calls(case.name, run.as_of, here)
    if isinstance(case, LanguageCase):
        asked = messages_since(run, case, snapshot, start)
        signal = measure_messages(
            champion, case.monitor, case.folder, predictions, asked, start, run.as_of, out, here.state
        )
    else:
        frame = examples_since(run, case, snapshot, start)
        before = past[0] if past else find_predecessor(champion, here.tracking, here.state)
        gate = case.evaluate.champion_gate
        signal = measure_window(
            champion, case.target, case.monitor, predictions, frame, start, run.as_of, out, here.state, before, gate
        )
    return decide_on(signal, case.monitor, past[1] if past else None)
