"""Promise: Prefect's internals that deployed runs need are there; a failure names what a new version changed."""

from __future__ import annotations

import inspect

import prefect
from prefect.client.orchestration import SyncPrefectClient
from prefect.workers import base
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

from flows.deployed.compat import RUN_ID_VARIABLE, use_job_type
from flows.deployed.job import Job

VERSION = f"Prefect {prefect.__version__}"


def test_prefect_names_a_run_in_its_environment():
    """Recovery finds live runs by it."""
    assert RUN_ID_VARIABLE in inspect.getsource(base), f"{VERSION} does not set {RUN_ID_VARIABLE}."


def test_prefect_takes_a_workers_job_type():
    worker = ProcessWorker(work_pool_name="any")
    use_job_type(worker, Job)
    assert worker.job_configuration is Job
    for name in ("from_template_and_values", "resolve_for_flow_run", "prepare_for_flow_run"):
        assert hasattr(ProcessJobConfiguration, name), f"{VERSION} lacks ProcessJobConfiguration.{name}."


def test_prefect_deletes_a_deployments_automations():
    name = "delete_resource_owned_automations"
    assert hasattr(SyncPrefectClient, name), f"{VERSION} lacks SyncPrefectClient.{name}."
