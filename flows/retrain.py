"""Monitoring's decision, carried out."""

from __future__ import annotations

from dataclasses import replace

from prefect import flow

from flows.case import TabularCase
from flows.champion_steps import current_champion, examples_since, monitor_champion
from flows.run_context import Request, RunContext, complete_if_nothing_to_do, run_context, run_name
from flows.steps import prepare_snapshot, release_candidate, train_and_evaluate
from services.rollout.task import roll_back
from services.store.decisions import record_decision
from tasks.core.actor import acting, pipeline
from tasks.core.config import Result
from tasks.data.results import Snapshot
from tasks.monitor.attempts import attempt_to_finish, record_attempt
from tasks.monitor.results import Decision
from tasks.monitor.task import recalibrate_champion
from tasks.release.results import Release


class RetrainResult(Result):
    """A decision, and the release that resulted from it, if any."""

    decision: Decision
    release: Release | None


@flow(name="retrain", flow_run_name=run_name)
def retrain(request: Request) -> RetrainResult:
    """Monitor, then carry out the decision: release a retrained or recalibrated challenger, or roll back."""
    with run_context(request) as run:
        return complete_if_nothing_to_do(lambda: retrain_steps(run))


def retrain_steps(run: RunContext) -> RetrainResult:
    """Raises: GateFailed when the challenger does not pass; the champion stays."""
    champion = current_champion(run)
    begun = attempt_to_finish(run.case.name, run.as_of, champion, run.settings.state)
    # an attempt of a killed run is finished as of its own moment, before anything new is measured
    decision = begun.decision if begun else monitor_champion(run, prepare_snapshot(run), champion)
    if decision.action in ("ignore", "alert") or (begun and begun.outcome == "released"):
        return RetrainResult(decision=decision, release=None)
    record_decision(decision, run.settings)
    with record_attempt(decision) as released, acting(pipeline()):
        release = execute_decision(replace(run, as_of=decision.as_of), decision)
        released(release.digest)
    return RetrainResult(decision=decision, release=release)


def execute_decision(run: RunContext, decision: Decision) -> Release:
    """Roll back, or create a challenger that is evaluated and released as any other candidate."""
    if decision.action == "rollback":
        return roll_back(run.case.name, decision.to, "answered the window better", run.settings)
    snapshot = prepare_snapshot(run)
    run = challenger_context(run, snapshot, decision)
    return release_candidate(run, train_and_evaluate(run, snapshot))


def challenger_context(run: RunContext, snapshot: Snapshot, decision: Decision) -> RunContext:
    """The run that creates the challenger: by training, or from the recalibrated champion."""
    if decision.action != "recalibrate" or not isinstance(run.case, TabularCase):
        return run
    frame = examples_since(run, run.case, snapshot, run.as_of - run.case.monitor.window)
    model = recalibrate_champion(decision, frame, run.case.target, run.case.train.split, run.settings.state)
    return replace(run, model=model)
