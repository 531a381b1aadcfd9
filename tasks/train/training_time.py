"""The training time of a candidate, from its MLflow run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.core.mlflow import mlflow_client, mlflow_errors
from tasks.core.settings import Settings
from tasks.train.results import Candidate

if TYPE_CHECKING:
    from mlflow.entities import Run

MINUTES_METRIC = "minutes"  # logged by a tuning, over all its restarts


def training_seconds(candidate: Candidate, settings: Settings) -> float:
    """The training time of a candidate, over all its restarts.

    Raises: Unavailable.
    """
    return run_seconds(training_run(candidate, settings))


def training_run(candidate: Candidate, settings: Settings) -> Run:
    with mlflow_errors(settings.mlflow_uri):
        return mlflow_client(settings.tracking).get_run(candidate.run_id)


def run_seconds(run: Run) -> float:
    milliseconds = (run.info.end_time or run.info.start_time) - run.info.start_time
    return float(max(milliseconds / 1000, 60 * run.data.metrics.get(MINUTES_METRIC, 0.0)))
