"""The cost of training: one usage record for each candidate, also when its run is restarted."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from services.store.database import DAY, DONE, USAGE_COLUMNS, Store, usage_records
from tasks.core.mlflow import mlflow_client, mlflow_errors
from tasks.core.settings import Settings
from tasks.release.config import NANO
from tasks.train.candidates import DEVICE_TAG, ENERGY_METRIC
from tasks.train.results import Candidate
from tasks.train.training_time import run_seconds, training_run

if TYPE_CHECKING:
    from mlflow.entities import Run

TRAINING = "training"  # its interface; it also stands for team and release, which training has not


def record_training(candidate: Candidate, machine_hour: float, settings: Settings) -> None:
    """Record a candidate's training time from its MLflow run, at the machine's price for an hour.

    Raises: Unavailable.
    """
    run = training_run(candidate, settings)
    seconds = run_seconds(run)
    at = run.info.start_time / 1000
    row = {
        **dict.fromkeys(("reserved", "retries", *USAGE_COLUMNS), 0),
        "id": f"{TRAINING}-{candidate.run_id}"[:40],
        "at": at,
        "day": int(at // DAY),
        "worker": run.data.tags.get(DEVICE_TAG, "cpu")[:40],
        **dict.fromkeys(("interface", "team", "digest"), TRAINING),
        "key": "",
        "case": candidate.case,
        "role": "",
        "budgets": [],
        "state": DONE,
        "status": 200,
        "engine_seconds": seconds,
        "seconds": seconds,
        "price": round(NANO * seconds * machine_hour / 3600),
        "energy_wh": _energy(run, settings),
    }
    with closing(Store(settings)) as store:
        try:
            with store.writing() as connection:
                connection.execute(insert(usage_records).values(**row))
        except IntegrityError:
            pass  # an earlier run recorded it


def _energy(run: Run, settings: Settings) -> float | None:
    """Of all stages that were trained for it."""
    with mlflow_errors(settings.mlflow_uri):
        stages = mlflow_client(settings.tracking).search_runs(
            [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
        )
    energies = [stage.data.metrics[ENERGY_METRIC] for stage in stages if ENERGY_METRIC in stage.data.metrics]
    return sum(energies) if energies else None
