"""What training costs, in the ledger beside the calls: one entry a candidate, whenever its run is started again."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from tasks.foundation.settings import Settings
from tasks.foundation.tracking import answering, client_of
from tasks.ledger.store import DAY, DONE, USED, Store, ledger
from tasks.release.config import NANO
from tasks.train.candidates import DEVICE, ENERGY
from tasks.train.results import Candidate

if TYPE_CHECKING:
    from mlflow.entities import Run

TRAINING = "training"  # its interface, and instead of a team and a release, which it has none of
MINUTES = "minutes"  # a tuning's own count, over all its processes


def enter_training(candidate: Candidate, machine_hour: float, settings: Settings) -> None:
    """Enter a candidate's training as its MLflow run tells it, at the price of an hour of the machine.

    Raises: Unavailable.
    """
    run = _run_of(candidate, settings)
    seconds = _seconds(run)
    at = run.info.start_time / 1000
    row = {
        **dict.fromkeys(("reserved", "retries", *USED), 0),
        "id": f"{TRAINING}-{candidate.run_id}"[:40],
        "at": at,
        "day": int(at // DAY),
        "worker": run.data.tags.get(DEVICE, "cpu")[:40],
        **dict.fromkeys(("interface", "team", "digest"), TRAINING),
        "key": "",
        "case": candidate.case,
        "role": "",
        "purses": [],
        "state": DONE,
        "status": 200,
        "engine_seconds": seconds,
        "seconds": seconds,
        "price": round(NANO * seconds * machine_hour / 3600),
        "energy_wh": _energy(run, settings),
    }
    with closing(Store(settings)) as store:
        try:
            with store.writing() as to:
                to.execute(insert(ledger).values(**row))
        except IntegrityError:
            pass  # it was entered before


def training_seconds(candidate: Candidate, settings: Settings) -> float:
    """What the ledger counts for a candidate's training.

    Raises: Unavailable.
    """
    return _seconds(_run_of(candidate, settings))


def _run_of(candidate: Candidate, settings: Settings) -> Run:
    with answering(settings.mlflow_uri):
        return client_of(settings.tracking).get_run(candidate.run_id)


def _seconds(run: Run) -> float:
    lasted = (run.info.end_time or run.info.start_time) - run.info.start_time
    return max(lasted / 1000, 60 * run.data.metrics.get(MINUTES, 0.0))


def _energy(run: Run, settings: Settings) -> float | None:
    """Of all stages that were trained for it."""
    with answering(settings.mlflow_uri):
        stages = client_of(settings.tracking).search_runs(
            [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
        )
    told = [stage.data.metrics[ENERGY] for stage in stages if ENERGY in stage.data.metrics]
    return sum(told) if told else None
