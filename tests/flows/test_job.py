"""Promise: who creates or changes a run chooses its parameters, and neither its command, environment nor folder."""

from __future__ import annotations

import asyncio
import shlex
import sys
import uuid
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect.client.orchestration import get_client

from flows.deployed.deploy import POOL, TEMPLATE, ensure_work_pool
from flows.deployed.job import Job
from tasks.core.errors import InputError
from tasks.core.settings import Settings
from tests.waiting import ask, wait_for

pytestmark = pytest.mark.xdist_group("end_to_end")  # beside whoever has the Prefect server already

EVIL = (
    {"command": "touch /tmp/owned"},
    {"env": {"PYTHONPATH": "/tmp"}},
    {"env.LD_PRELOAD": "/tmp/x.so"},
    {"working_dir": "/tmp"},
    {"stream_output": False},
    {"name": "{{ ctx.flow.name }}"},
    {"labels": {"x": "y"}},
    {"anything": "else"},
    {"command": None},
)


@pytest.fixture
def http(prefect_server: str) -> Iterator[httpx.Client]:
    headers = Settings().prefect_headers
    with httpx.Client(base_url=prefect_server, headers=headers, timeout=30, trust_env=False, verify=False) as http:
        yield http


@pytest.fixture
def deployment(http: httpx.Client, prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a flow, in our pool, which an earlier version had made with Prefect's own template."""
    earlier = {
        "job_configuration": {"command": "{{ command }}", "env": "{{ env }}", "working_dir": "{{ working_dir }}"},
        "variables": {
            "type": "object",
            "properties": {
                "command": {"type": "string"},
                "env": {"type": "object"},
                "working_dir": {"type": "string"},
            },
        },
    }
    remove_pool(http)
    ask(http, "POST", "/work_pools/", {"name": POOL, "type": "process", "base_job_template": earlier})
    with connected(prefect_server):
        with get_client(sync_client=True) as client:
            ensure_work_pool(client)
        flow = ask(http, "POST", "/flows/", {"name": f"flow {uuid.uuid4()}"})["id"]
        body = {"name": "x", "flow_id": flow, "work_pool_name": POOL}
        yield ask(http, "POST", "/deployments/", body)["id"]
    remove_pool(http)


def remove_pool(http: httpx.Client) -> None:
    """Prefect's server answers 503 while its database is busy."""
    assert wait_for(lambda: http.delete(f"/work_pools/{POOL}").status_code in (204, 404), 60)


def connected(api: str) -> Any:
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    return temporary_settings({PREFECT_API_URL: api, PREFECT_API_AUTH_STRING: Settings().prefect_auth})


def job_of(run: str, kind: type[Job] = Job) -> Job:
    """What our worker makes of a run."""

    async def resolve() -> Job:
        async with get_client() as client:
            found, pool = await client.read_flow_run(UUID(run)), await client.read_work_pool(POOL)
            return await kind.resolve_for_flow_run(found, client=client, work_pool=pool, worker_name="w")

    return asyncio.run(resolve())


def test_an_earlier_pool_is_changed_and_its_template_has_no_variable(http, deployment):
    """By `deploy` and by each start of the worker."""
    assert http.get(f"/work_pools/{POOL}").json()["base_job_template"] == TEMPLATE
    assert not TEMPLATE["variables"]["properties"]
    assert "{{" not in str(TEMPLATE)


@pytest.mark.parametrize("variables", EVIL, ids=lambda each: "".join(each))
def test_a_run_with_job_variables_does_not_start(http, deployment, variables):
    """Refused by the server; where it takes them (a run or deployment changed later), by the worker."""
    response = http.post(f"/deployments/{deployment}/create_flow_run", json={"job_variables": variables})
    assert response.status_code in (409, 422), response.text
    run = ask(http, "POST", f"/deployments/{deployment}/create_flow_run", {})["id"]
    if http.patch(f"/flow_runs/{run}", json={"job_variables": variables}).is_success:
        with pytest.raises(InputError, match="can't have job variables"):
            job_of(run)
    run = ask(http, "POST", f"/deployments/{deployment}/create_flow_run", {})["id"]
    if http.patch(f"/deployments/{deployment}", json={"job_variables": variables}).is_success:
        with pytest.raises(InputError, match="can't have job variables"):
            job_of(run)


def test_a_changed_pool_changes_no_command(http, deployment):
    """Whatever its template says: the command is the worker's own, with the worker's variables and no folder."""
    properties = {"command": {"type": "string", "default": "touch /tmp/owned"}}
    template = {
        "job_configuration": {"command": "{{ command }}", "env": {"LD_PRELOAD": "x"}, "working_dir": "/tmp"},
        "variables": {"type": "object", "properties": properties},
    }
    assert http.patch(f"/work_pools/{POOL}", json={"base_job_template": template}).is_success
    run = ask(http, "POST", f"/deployments/{deployment}/create_flow_run", {})["id"]
    job = job_of(run)
    assert shlex.split(job.command or "") == [sys.executable, "-m", "prefect.engine"]
    assert job._command_configured, "else Prefect would choose a command"
    assert job.working_dir is None
    assert "LD_PRELOAD" not in job.env
    assert job.env["PREFECT__FLOW_RUN_ID"] == run


@pytest.mark.parametrize("commit", ["0" * 40, "HEAD", "main", "--upload-pack=x", "../../etc", 7, ["x"], {"x": "y"}])
def test_a_run_of_an_unknown_commit_does_not_start(http, deployment, commit):
    """Whatever stands in its place, also where the schema of the parameters is not enforced."""
    body = {"parameters": {"request": {"case": "x", "commit": commit}}}
    run = ask(http, "POST", f"/deployments/{deployment}/create_flow_run", body)["id"]
    with pytest.raises(InputError, match="not published"):
        job_of(run)
