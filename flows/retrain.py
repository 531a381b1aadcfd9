"""What is done when monitoring decides so."""

from __future__ import annotations

from dataclasses import replace

from prefect import flow

from flows.case import TabularCase
from flows.monitor import monitor_steps
from flows.predict import current_champion, examples_since
from flows.prepare import prepare_steps
from flows.release import release_steps
from flows.run_context import Request, RunContext, complete_if_nothing_to_do, run_context, run_name
from flows.train import train_steps
from services.rollout.task import roll_back
from tasks.core.config import Result
from tasks.data.results import Snapshot
from tasks.monitor.attempts import attempt_to_finish, record_attempt
from tasks.monitor.results import Decision
from tasks.monitor.task import recalibrate_champion
from tasks.release.results import Release


class RetrainResult(Result):
    """A decision, and the release that came of it, if one did."""

    decision: Decision
    release: Release | None


@flow(name="retrain", flow_run_name=run_name)
def retrain(request: Request) -> RetrainResult:
    """Monitor, then do what was decided: go from data to release again, calibrate the champion anew, or roll back."""
    with run_context(request) as run:
        return complete_if_nothing_to_do(lambda: retrain_steps(run))


def retrain_steps(run: RunContext) -> RetrainResult:
    """Raises: GateFailed when the challenger does not pass; the champion stays."""
    champion = current_champion(run)
    begun = attempt_to_finish(run.case.name, run.as_of, champion, run.settings.state)
    # what a killed run has begun is finished as of its own moment, before anything new is looked at
    decision = begun.decision if begun else monitor_steps(run, prepare_steps(run), champion)
    if decision.action in ("ignore", "alert") or (begun and begun.outcome == "released"):
        return RetrainResult(decision=decision, release=None)
    with record_attempt(decision) as released:
        release = execute_decision(replace(run, as_of=decision.as_of), decision)
        released(release.digest)
    return RetrainResult(decision=decision, release=release)


def execute_decision(run: RunContext, decision: Decision) -> Release:
    """Do what was decided: go back, or make a challenger and have it judged and released as any other."""
    if decision.action == "rollback":
        return roll_back(run.case.name, decision.to, "answered the window better", run.settings)
    snapshot = prepare_steps(run)
    run = challenger_context(run, snapshot, decision)
    return release_steps(run, train_steps(run, snapshot))


def challenger_context(run: RunContext, snapshot: Snapshot, decision: Decision) -> RunContext:
    """The run that makes the challenger: by training, or with the champion calibrated anew in its place."""
    if decision.action != "recalibrate" or not isinstance(run.case, TabularCase):
        return run
    frame = examples_since(run, run.case, snapshot, run.as_of - run.case.monitor.window)
    return replace(
        run, model=recalibrate_champion(decision, frame, run.case.target, run.case.train.split, run.settings.state)
    )
