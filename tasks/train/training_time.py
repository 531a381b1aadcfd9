"""How long the training of a candidate took, by its MLflow run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.core.mlflow import mlflow_client, mlflow_errors
from tasks.core.settings import Settings
from tasks.train.results import Candidate

if TYPE_CHECKING:
    from mlflow.entities import Run

MINUTES = "minutes"  # a tuning's own count, over all its processes


def training_seconds(candidate: Candidate, settings: Settings) -> float:
    """How long a candidate's training took, over all its processes.

    Raises: Unavailable.
    """
    return seconds_of(run_of(candidate, settings))


def run_of(candidate: Candidate, settings: Settings) -> Run:
    with mlflow_errors(settings.mlflow_uri):
        return mlflow_client(settings.tracking).get_run(candidate.run_id)


def seconds_of(run: Run) -> float:
    lasted = (run.info.end_time or run.info.start_time) - run.info.start_time
    return max(lasted / 1000, 60 * run.data.metrics.get(MINUTES, 0.0))
