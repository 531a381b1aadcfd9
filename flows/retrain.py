"""What is done when monitoring decides so."""

from __future__ import annotations

from prefect import flow

from flows.entry import Opened, Request, opened, run_name
from flows.monitor import monitor_steps
from flows.predict import champion_with_traffic
from flows.prepare import prepare_steps
from flows.release import release_steps
from flows.train import train_steps
from tasks.foundation.config import Result
from tasks.monitor.results import Decision
from tasks.release.results import Release


class Retrained(Result):
    """A decision, and the release that came of it, if one did."""

    decision: Decision
    release: Release | None


@flow(name="retrain", flow_run_name=run_name)
def retrain(request: Request) -> Retrained:
    """Monitor; when the decision is to retrain, go from data to release again: challenger against champion."""
    with opened(request) as run:
        return retrain_steps(run)


def retrain_steps(run: Opened) -> Retrained:
    """Raises: GateFailed when the challenger does not pass; the champion stays."""
    snapshot = prepare_steps(run)
    decision = monitor_steps(run, snapshot, champion_with_traffic(run))
    if decision.action != "retrain":
        return Retrained(decision=decision, release=None)
    return Retrained(decision=decision, release=release_steps(run, train_steps(run, snapshot)))
