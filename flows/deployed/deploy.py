"""`driftline deploy`: every flow of every case as a deployment, declared in STATE/prefect.yaml."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from flows.case import LanguageCase, TabularCase, case_names, load_case
from flows.deployed.alerts import set_up_alerts
from services.runtime.prefect_api import TAG, reach_prefect
from tasks.core.console import console
from tasks.core.errors import Unavailable
from tasks.core.files import write_text
from tasks.core.git_push import PUSH_DEPLOYMENT
from tasks.core.settings import ROOT, settings

POOL = TAG
# A caller can set no command, environment or folder of a run: the worker derives them from its parameters
TEMPLATE: dict[str, Any] = {
    "job_configuration": {"stream_output": True},  # Prefect requires an entry
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}
SKIP, QUEUE = "CANCEL_NEW", "ENQUEUE"  # a second run at the same time: is anything left to do for it?
FLOWS = {  # what each flow does, and what happens to a second run of it
    "prepare": ("Sources to a validated snapshot.", QUEUE),  # each push has its own sources
    "train": ("Prepare, train a candidate, and evaluate it.", QUEUE),
    "release": ("From sources to a candidate that passes its gates and becomes the champion.", QUEUE),
    "predict": ("The champion's predictions since its release, as Parquet.", SKIP),
    "monitor": ("Measure the champion and decide; a decision to act starts retrain.", SKIP),
    "retrain": ("Monitor, and carry out the decision: challenger against champion.", SKIP),
    "backtest": ("Past months under several retraining policies.", SKIP),
}
TABULAR_ONLY = ("backtest",)
HEADER = """\
# Every flow of every case, for Prefect: written by `driftline deploy` from the case folders. Change those, not this.
# Needs:    driftline up
# Run:      driftline deploy
# Override: the section `schedule` of a case
"""


def prefect_yaml(cases: Path) -> str:
    """The text of prefect.yaml for the cases of a folder.

    Raises: CaseError for a case that is not valid.
    """
    every = [load_case(case, cases) for case in case_names(cases)]
    deployments = [
        _deployment(case, flow)
        for case in every
        for flow in FLOWS
        if flow not in TABULAR_ONLY or isinstance(case, TabularCase)
    ]
    declared: dict[str, Any] = {
        "prefect-version": None,
        "name": "driftline",
        "pull": [{"flows.deployed.checkout.code_directory": {}}],
        "deployments": [*deployments, _push_deployment()],
    }
    return HEADER + yaml.safe_dump(declared, sort_keys=False, width=120)


def _deployment(case: TabularCase | LanguageCase, flow: str) -> dict[str, Any]:
    description, collision_strategy = FLOWS[flow]
    cron = {"prepare": case.schedule.prepare, "monitor": case.schedule.monitor}.get(flow, "")
    return {
        "name": case.name,
        "entrypoint": f"flows/{flow}.py:{flow}",
        "description": f"{description} {case.description}",
        "tags": [TAG, case.name],
        "parameters": {"request": {"case": case.name}},
        "enforce_parameter_schema": True,
        "work_pool": {"name": POOL},
        "concurrency_limit": {"limit": 1, "collision_strategy": collision_strategy},
        "schedules": [{"cron": cron, "timezone": case.schedule.timezone}] if cron else [],
        "triggers": [_decision_trigger(case.name)] if flow == "retrain" else [],
    }


def _push_deployment() -> dict[str, Any]:
    """The deployment that a git push runs: it finds out which of the others to start. Any number may run at once."""
    flow, _, name = PUSH_DEPLOYMENT.partition("/")
    return {
        "name": name,
        "entrypoint": f"flows/{flow}.py:{flow}",
        "description": "Start the flows of the cases whose files a git push changed, each at its commit.",
        "tags": [TAG],
        "enforce_parameter_schema": True,
        "work_pool": {"name": POOL},
    }


def _decision_trigger(case: str) -> dict[str, Any]:
    """One run for each evidence: a second event of the same evidence within a day starts nothing."""
    return {
        "type": "event",
        "name": f"{case} retrains when monitoring decides so",
        "enabled": True,
        "match": {"prefect.resource.id": f"driftline.case.{case}"},
        "expect": [f"driftline.decision.{action}" for action in ("retrain", "recalibrate", "rollback")],
        "for_each": ["driftline.evidence"],
        "threshold": 1,
        "within": 86400,
        "parameters": {
            "request": {
                "case": case,
                "as_of": "{{ event.payload.as_of }}",
                "by": "decision {{ event.payload.evidence }}",
            }
        },
    }


def deploy() -> None:
    """Write prefect.yaml into the state folder, create its deployments, and remove those whose case is gone.

    Raises: Unavailable when the server does not answer, or refuses.
    """
    config = settings()
    declared = prefect_yaml(config.cases)
    # not into the repository, where a changed file would mark releases as dirty
    file = write_text(config.state / "prefect.yaml", declared)
    if not reach_prefect():
        raise Unavailable("Prefect's server does not answer.", where=config.prefect_api, todo="driftline up")
    with console.status("deploying ..."):
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            ensure_work_pool(client)
            command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Unavailable(
                    "Prefect refused the deployments.",
                    where=str(file),
                    found=(done.stdout + done.stderr)[-2000:].strip(),
                    todo="Correct what it names.",
                )
            deployments = yaml.safe_load(declared)["deployments"]
            gone = _remove_gone(client, {(each["entrypoint"], each["name"]) for each in deployments})
            channels = set_up_alerts(client, config)
    console.print(f"  {len(deployments)} deployments of {len(case_names(config.cases))} cases")
    console.print(f"  alerts go to {channels} channels" if channels else "  alerts go nowhere: set DRIFTLINE_ALERTS")
    for name in gone:
        console.print(f"  removed {name}: its case is gone")


def ensure_work_pool(client: Any) -> None:
    """Create the work pool, or give an existing one our template."""
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists

    with contextlib.suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=TEMPLATE))
    if client.read_work_pool(POOL).base_job_template != TEMPLATE:
        client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=TEMPLATE))


def _remove_gone(client: Any, declared: set[tuple[str, str]]) -> list[str]:
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    existing = client.read_deployments(deployment_filter=DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG])))
    return _delete(client, [each for each in existing if (each.entrypoint, each.name) not in declared])


def remove_deployments(case: str) -> list[str] | None:
    """Delete the deployments of a case, with their schedules and triggers; None when Prefect's server is down."""
    if not reach_prefect():
        return None
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    with get_client(sync_client=True) as client:
        own = client.read_deployments(deployment_filter=DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG, case])))
        return _delete(client, [each for each in own if each.name == case])


def _delete(client: Any, deployments: list[Any]) -> list[str]:
    for each in deployments:
        client.delete_resource_owned_automations(f"prefect.deployment.{each.id}")
        client.delete_deployment(each.id)
    return sorted(f"{each.entrypoint.rpartition(':')[2]}/{each.name}" for each in deployments)
