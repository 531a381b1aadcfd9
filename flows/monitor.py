"""The champion's quality on recent data, and what to do about it."""

from __future__ import annotations

from prefect import flow

from flows.champion_steps import current_champion, monitor_champion
from flows.run_context import Request, RunContext, complete_if_nothing_to_do, run_context, run_name
from flows.steps import prepare_snapshot
from services.store.decisions import record_decision
from tasks.monitor.results import Decision
from tasks.monitor.task import announce_decision


@flow(name="monitor", flow_run_name=run_name)
def monitor(request: Request) -> Decision:
    """Predict what is missing, join the outcomes that have arrived, measure, and decide what to do."""
    with run_context(request) as run:
        return complete_if_nothing_to_do(lambda: monitor_and_announce(run))


def monitor_and_announce(run: RunContext) -> Decision:
    decision = monitor_champion(run, prepare_snapshot(run), current_champion(run))
    record_decision(decision, run.settings)
    announce_decision(decision)
    return decision
