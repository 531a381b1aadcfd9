"""What was killed ends, and what was due is done: runs whose process is gone are told so, and started again."""

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

from flows.deployed.deploy import POOL
from services.runtime.prefect_api import TAG
from services.store.approvals import list_approvals
from services.store.database import Store
from tasks.core.settings import settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

START_TIMEOUT = timedelta(seconds=60)  # that a run may take from being claimed to having a process
MAX_TRIES = 3  # starts of a run that is killed again and again: whatever kills it will do so the next time
RECENT = timedelta(days=2)


def recover(first: bool) -> list[str]:
    """End the deployed runs whose process is gone, start again those that crashed, and tell what was done.

    `first`: this worker has only just started, so that no run can be on its way to a process.
    """
    with get_client(sync_client=True) as client:
        alive, others = _live_runs(), _remote_workers(client)
        lines = []
        for run in _runs(client, StateType.RUNNING, StateType.PENDING, StateType.CANCELLING):
            if run.labels.get("prefect.worker.name") in others:
                continue  # its process can't be seen from here; missing heartbeats tell of it
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
    """Let suspended runs go on about which a person has decided elsewhere than in Prefect's form."""
    waiting = _runs(client, StateType.PAUSED)
    if not waiting:
        return []
    with closing(Store(settings())) as store:
        decided = {each.run: each for each in list_approvals(store) if each.state in ("approved", "rejected")}
    lines = []
    for run in waiting:
        if (said := decided.get(str(run.id))) is not None:
            word = {
                "decision": "approve" if said.state == "approved" else "reject",
                "name": said.decided_by,
                "why": said.reason,
            }
            client.resume_flow_run(run.id, run_input=word)
            lines.append(f"{run.name}: {said.outcome}, it goes on")
    return lines


def _is_starting(run: FlowRun) -> bool:
    """Was it claimed so lately that its process may still come?"""
    return run.state is not None and datetime.now(UTC) - run.state.timestamp < START_TIMEOUT


def _restart_crashed(client: SyncPrefectClient, run: FlowRun) -> str:
    """Start a crashed run again, once: the key makes a second start the same run."""
    if run.id in _handled or run.deployment_id is None:
        return ""
    _handled.add(run.id)
    if run.job_variables:
        return f"{run.name}: it names a command or an environment, so it is not started again"
    tries = next((int(tag.removeprefix("try ")) for tag in run.tags if tag.startswith("try ")), 1)
    if tries >= MAX_TRIES:
        return f"{run.name}: crashed {tries} times, it is not started again"
    tags = [tag for tag in run.tags if not tag.startswith("try ")]
    made = client.create_flow_run_from_deployment(
        run.deployment_id,
        parameters=run.parameters,
        tags=[*tags, f"try {tries + 1}"],
        idempotency_key=f"after {run.id}",
    )
    started = made.state is not None and made.state.is_scheduled()  # else it was, by the worker before this one
    return f"{run.name}: crashed, is started again as {made.name}" if started else ""


_handled: set[UUID] = set()  # crashed runs that this process has dealt with; it spares questions, the key decides


def _live_runs() -> set[str]:
    """The runs that have a process on this machine."""
    found = set()
    for process in psutil.process_iter():
        try:
            found.add(process.environ().get("PREFECT__FLOW_RUN_ID", ""))
        except (psutil.Error, OSError):
            continue  # another user's, or gone
    return found


def _remote_workers(client: SyncPrefectClient) -> set[str]:
    """The workers of this pool that live on other machines; what one had that is gone for good is anybody's."""
    online = WorkerFilter(status=WorkerFilterStatus(any_=["ONLINE"]))
    workers = client.read_workers_for_work_pool(POOL, worker_filter=online)
    return {worker.name for worker in workers} - {socket.gethostname()}
