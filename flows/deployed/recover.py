"""Recovery of deployed runs: one whose process is gone is marked as crashed, and started again."""

from __future__ import annotations

import socket
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psutil
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    WorkerFilter,
    WorkerFilterStatus,
)
from prefect.states import Cancelled, Crashed, State, StateType

from flows.deployed.compat import RUN_ID_VARIABLE
from flows.deployed.deploy import POOL
from services.runtime.prefect_api import TAG
from services.store.approvals import list_approvals
from services.store.database import Store
from tasks.core.settings import settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

START_TIMEOUT = timedelta(seconds=60)  # from the claim of a run to its process
MAX_TRIES = 3  # starts of a run that crashes each time
RECENT = timedelta(days=2)


def recover(first: bool) -> list[str]:
    """End the deployed runs whose process is gone, restart those that crashed, and return what was done.

    `first`: this worker has just started, so no run can be between its claim and its process.
    """
    with get_client(sync_client=True) as client:
        alive, others = _live_runs(), _remote_workers(client)
        lines = []
        for run in _runs(client, StateType.RUNNING, StateType.PENDING, StateType.CANCELLING):
            if run.labels.get("prefect.worker.name") in others:
                continue  # its process is on another machine; the automation for missing heartbeats ends it
            if str(run.id) in alive or (run.state_type == StateType.PENDING and not first and _is_starting(run)):
                continue
            cancelled = run.state_type == StateType.CANCELLING
            ended: State[Any] = Cancelled() if cancelled else Crashed(message="Its process is gone.")
            client.set_flow_run_state(run.id, ended, force=True)
            lines.append(f"{run.name}: its process is gone, so it is {ended.name}")
        lines += _resume_decided(client)
        return lines + [line for run in _runs(client, StateType.CRASHED) if (line := _restart_crashed(client, run))]


def _runs(client: SyncPrefectClient, *states: StateType) -> list[FlowRun]:
    wanted = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[TAG]),
        deployment_id=FlowRunFilterDeploymentId(is_null_=False),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states))),
        expected_start_time=FlowRunFilterExpectedStartTime(after_=datetime.now(UTC) - RECENT),
    )
    return client.read_flow_runs(flow_run_filter=wanted)


def _resume_decided(client: SyncPrefectClient) -> list[str]:
    """Resume suspended runs whose approval was decided by another channel than Prefect's form."""
    waiting = _runs(client, StateType.PAUSED)
    if not waiting:
        return []
    with closing(Store(settings())) as store:
        decided = {each.run: each for each in list_approvals(store) if each.state in ("approved", "rejected")}
    lines = []
    for run in waiting:
        if (approval := decided.get(str(run.id))) is not None:
            decision = "approve" if approval.state == "approved" else "reject"
            form = {"decision": decision, "name": approval.decided_by, "why": approval.reason}
            client.resume_flow_run(run.id, run_input=form)
            lines.append(f"{run.name}: {approval.outcome}, it resumes")
    return lines


def _is_starting(run: FlowRun) -> bool:
    """Was it claimed so recently that its process may still start?"""
    return run.state is not None and datetime.now(UTC) - run.state.timestamp < START_TIMEOUT


def _restart_crashed(client: SyncPrefectClient, run: FlowRun) -> str:
    """Restart a crashed run, once: the idempotency key makes a second restart the same run."""
    if run.id in _handled or run.deployment_id is None:
        return ""
    _handled.add(run.id)
    if run.job_variables:
        return f"{run.name}: it sets a command or an environment, so it is not restarted"
    tries = next((int(tag.removeprefix("try ")) for tag in run.tags if tag.startswith("try ")), 1)
    if tries >= MAX_TRIES:
        return f"{run.name}: crashed {tries} times, it is not restarted"
    tags = [tag for tag in run.tags if not tag.startswith("try ")]
    new = client.create_flow_run_from_deployment(
        run.deployment_id,
        parameters=run.parameters,
        tags=[*tags, f"try {tries + 1}"],
        idempotency_key=f"after {run.id}",
    )
    is_new = new.state is not None and new.state.is_scheduled()  # else an earlier worker restarted it
    return f"{run.name}: crashed, is restarted as {new.name}" if is_new else ""


_handled: set[UUID] = set()  # crashed runs that this process has handled; it saves requests, the key decides


def _live_runs() -> set[str]:
    """The runs that have a process on this machine."""
    runs = set()
    for process in psutil.process_iter():
        try:
            runs.add(process.environ().get(RUN_ID_VARIABLE, ""))
        except (psutil.Error, OSError):
            continue  # of another user, or gone
    return runs


def _remote_workers(client: SyncPrefectClient) -> set[str]:
    """The online workers of this pool on other machines; the runs of an offline worker are for anyone to recover."""
    online = WorkerFilter(status=WorkerFilterStatus(any_=["ONLINE"]))
    workers = client.read_workers_for_work_pool(POOL, worker_filter=online)
    return {worker.name for worker in workers} - {socket.gethostname()}
