"""The cost of training, one usage record a candidate, also when its run is restarted; and that of evaluations."""

from __future__ import annotations

import secrets
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from services.store.database import DAY, DONE, USAGE_COLUMNS, Store, now, usage_records
from tasks.core.mlflow import mlflow_client, mlflow_errors
from tasks.core.settings import Settings
from tasks.language.token_count import TokenCount
from tasks.release.config import NANO, Price
from tasks.search.results import read_trials, trial_path
from tasks.train.candidates import DEVICE_TAG, ENERGY_METRIC
from tasks.train.results import Candidate
from tasks.train.training_time import run_seconds, training_run

if TYPE_CHECKING:
    from mlflow.entities import Run

TRAINING, EVALUATION = "training", "evaluation"  # interfaces of usage records that no client's call has


def record_training(candidate: Candidate, machine_hour: float, settings: Settings) -> None:
    """Record a candidate's training time from its MLflow run, at the machine's price for an hour.

    Raises: Unavailable.
    """
    run = training_run(candidate, settings)
    seconds = run_seconds(run)
    row = _row(TRAINING, candidate.case, run.info.start_time / 1000) | {
        "id": f"{TRAINING}-{candidate.run_id}"[:40],
        "worker": run.data.tags.get(DEVICE_TAG, "cpu")[:40],
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


def record_evaluation(case: str, count: TokenCount, price: Price, settings: Settings) -> None:
    """Record the calls of an evaluation as one usage record."""
    fresh = count.tokens_in - count.tokens_cached
    tokens = {name: getattr(count, name) for name in ("tokens_in", "tokens_cached", "tokens_out")}
    row = _row(EVALUATION, case, now()) | {
        **tokens,
        "id": f"{EVALUATION}-{secrets.token_hex(12)}",
        "worker": "cpu",
        "engine_seconds": count.seconds,
        "seconds": count.seconds,
        "price": price.of(fresh, count.tokens_cached, count.tokens_out, count.seconds),
    }
    with closing(Store(settings)) as store, store.writing() as connection:
        connection.execute(insert(usage_records).values(**row))


def record_trials(case: str, key: str, folder: Path, machine_hour: float, settings: Settings) -> None:
    """Record the measured trials of a search that have no usage record yet: machine time, and the money of calls."""
    rows = [
        _row(TRAINING, case, trial_path(folder, trial.number).stat().st_mtime)
        | {
            "id": f"search-{key[:12]}-{trial.number}",
            "worker": "cpu",
            "engine_seconds": trial.seconds,
            "seconds": trial.seconds,
            "price": round(NANO * (trial.seconds * machine_hour / 3600 + trial.money)),
        }
        for trial in read_trials(folder)
        if trial.seconds and trial.state != "running"
    ]
    with closing(Store(settings)) as store, store.writing() as connection:
        names = [row["id"] for row in rows]
        known = set(connection.scalars(select(usage_records.c.id).where(usage_records.c.id.in_(names))))
        if new := [row for row in rows if row["id"] not in known]:
            connection.execute(insert(usage_records), new)


def _row(interface: str, case: str, at: float) -> dict[str, Any]:
    """A usage record that no client's call has; the interface also stands for team and release."""
    return {
        **dict.fromkeys(("reserved", "retries", *USAGE_COLUMNS), 0),
        "at": at,
        "day": int(at // DAY),
        **dict.fromkeys(("interface", "team", "digest"), interface),
        "key": "",
        "case": case,
        "role": "",
        "budgets": [],
        "state": DONE,
        "status": 200,
    }


def _energy(run: Run, settings: Settings) -> float | None:
    """Of all stages that were trained for it."""
    with mlflow_errors(settings.mlflow_uri):
        stages = mlflow_client(settings.tracking).search_runs(
            [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
        )
    energies = [stage.data.metrics[ENERGY_METRIC] for stage in stages if ENERGY_METRIC in stage.data.metrics]
    return sum(energies) if energies else None
