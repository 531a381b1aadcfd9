"""Prefect's internals that deployed runs depend on; tests/flows/test_compat.py checks each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

RUN_ID_VARIABLE = "PREFECT__FLOW_RUN_ID"  # in the environment of a run's process: how a live run is recognised


def use_job_type(worker: ProcessWorker, job_type: type[ProcessJobConfiguration]) -> None:
    """Make a worker configure its runs with our type; a subclass of the worker would need its own work pool type."""
    worker.job_configuration = job_type
