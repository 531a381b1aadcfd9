"""A search in MLflow: one run for the search, and a child for each trial that ended."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.core.mlflow import Tracking, get_or_create_experiment, log_batch, mlflow_client, start_run
from tasks.search.results import SearchResult, TrialRecord

BACKLOG = 4  # trials that wait to be logged; more hold the search up, so that it closes in time
STATUS = {"complete": "FINISHED", "beaten": "FINISHED", "failed": "FAILED"}
PARENT = "mlflow.parentRunId"


class TrialLog:
    """Logs trials from a thread of its own: a run takes longer to log than a small table to fit."""

    def __init__(self, tracking: Tracking, case: str, key: str) -> None:
        self._tracking = tracking
        self._case = case
        self._key = key
        self._queue: queue.Queue[TrialRecord | SearchResult | Path | None] = queue.Queue(BACKLOG)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._error: Exception | None = None

    def log(self, what: TrialRecord | SearchResult | Path) -> None:
        """A trial that ended; the result; or the report. Raises: what MLflow raised before."""
        if self._error:
            raise self._error
        self._queue.put(what)

    def _work(self) -> None:
        try:
            client = mlflow_client(self._tracking)
            experiment = get_or_create_experiment(client, self._tracking, self._case)
            with start_run(
                client, experiment, self._key, f"search {self._case}", {"driftline.search": self._key}
            ) as run:
                while (item := self._queue.get()) is not None:
                    if isinstance(item, TrialRecord):
                        self._log_trial(client, experiment, run, item)
                    elif isinstance(item, SearchResult):
                        log_batch(client, run, metrics=_totals(item), params={"stopped": item.stopped})
                    else:
                        client.log_artifact(run, str(item))
        except Exception as error:  # noqa: BLE001 (raised in the thread that searches)
            self._error = error
            while self._queue.get() is not None:
                pass

    def _log_trial(self, client: Any, experiment: str, parent: str, trial: TrialRecord) -> None:
        if trial.state not in STATUS:
            return
        now = int(time.time() * 1000)
        tags = {PARENT: parent, "driftline.state": trial.state, "driftline.arm": trial.arm}
        name = f"trial {trial.number} {trial.arm}"
        created = client.create_run(experiment, start_time=now - int(1000 * trial.seconds), run_name=name, tags=tags)
        metrics = {name: value for name, value in _figures(trial).items() if value is not None}
        log_batch(client, created.info.run_id, metrics=metrics, params={**trial.parameters, "label": trial.label[:200]})
        client.set_terminated(created.info.run_id, STATUS[trial.state], end_time=now)


@contextmanager
def trial_log(tracking: Tracking, case: str, key: str) -> Iterator[TrialLog]:
    """A log that is written to its end. Raises: Unavailable when MLflow does not answer."""
    log = TrialLog(tracking, case, key)
    log._thread.start()
    try:
        yield log
    finally:
        log._queue.put(None)
        log._thread.join()
    if log._error:
        raise log._error


def _figures(trial: TrialRecord) -> dict[str, float | None]:
    names = ("loss", "best", "seconds", "calls", "money", "call_seconds", "call_cost", "rungs")
    return {name: getattr(trial, name) for name in names} | trial.metrics


def _totals(result: SearchResult) -> dict[str, float]:
    return {
        "trials": len(result.trials),
        "seconds": result.seconds,
        "calls": result.calls,
        "money": result.money,
        "loss": result.best.loss or 0.0,
        "start_loss": result.trial(0).loss or 0.0,
    }
