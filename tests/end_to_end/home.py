"""A whole stack of a test's own, with the login that its first `up` created, looked at through Prefect's API."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psutil

from services.runtime.supervision import Supervisor
from services.serving.process import free_port
from services.store.approvals import Approval, list_approvals
from services.store.database import Store
from tasks.core.local_secrets import read_secret
from tasks.core.settings import AUTH_STRINGS, LOGIN_SECRET, LOGIN_USER, Settings
from tests.end_to_end.small import make_moving_case
from tests.end_to_end.terminal import Terminal, World
from tests.waiting import ask, listens, wait_for

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class Home:
    """A world whose stack runs, with its own Prefect server and worker."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ui = f"http://127.0.0.1:{world.variables['DRIFTLINE_PREFECT_PORT']}"
        self.gateway = f"http://127.0.0.1:{world.variables['DRIFTLINE_GATEWAY_PORT']}"
        self.settings = Settings(state=world.state)

    @cached_property
    def login(self) -> tuple[str, str]:
        """User and password of both servers."""
        return LOGIN_USER, read_secret(self.world.state, LOGIN_SECRET) or ""

    @cached_property
    def http(self) -> httpx.Client:
        """A client of Prefect's server, with the login."""
        return httpx.Client(base_url=f"{self.ui}/api", auth=self.login, timeout=30, trust_env=False, verify=False)

    def start(self, flow: str, case: str, **request: Any) -> str:
        """Start a deployment as a schedule or a button would; gives the run's id."""
        body = {"parameters": {"request": {"case": case, **request}}, "state": {"type": "SCHEDULED"}}
        return str(self.ask("POST", f"/deployments/{self.deployment(flow, case)}/create_flow_run", body)["id"])

    def make_champions(self, *cases: str) -> None:
        """Release the cases, all at once."""
        for run in [self.start("release", case) for case in cases]:
            assert self.ended(run, 300)["state_type"] == "COMPLETED"
        assert {self.at_gateway(case) for case in cases} == {self.world.champion(case) for case in cases}

    def deployment(self, flow: str, case: str) -> str:
        return str(self.http.get(f"/deployments/name/{flow}/{case}").raise_for_status().json()["id"])

    def runs(self, flow: str, case: str) -> list[dict[str, Any]]:
        """All runs of a deployment, oldest first."""
        body = {"flows": {"name": {"any_": [flow]}}, "deployments": {"name": {"any_": [case]}}}
        found = self.http.post("/flow_runs/filter", json=body).raise_for_status().json()
        return sorted(found, key=lambda run: run["created"])

    def states(self, flow: str, case: str) -> list[str]:
        return [run["state_type"] for run in self.runs(flow, case)]

    def run(self, id_: str) -> dict[str, Any]:
        return self.http.get(f"/flow_runs/{id_}").raise_for_status().json()

    def ended(self, id_: str, timeout: float = 120) -> dict[str, Any]:
        assert wait_for(lambda: self.run(id_)["state_type"] in ENDED, timeout), self.run(id_)["state"]
        return self.run(id_)

    def ask(self, method: str, path: str, body: Any) -> Any:
        return ask(self.http, method, path, body)

    def tell(self, event: dict[str, Any]) -> None:
        """Tell Prefect's server of an event that happens just now."""
        now = {"id": str(uuid.uuid4()), "occurred": datetime.now(UTC).isoformat()}
        self.ask("POST", "/events", [{**now, **event}])

    def reached(self, flow: str, case: str, step: str, timeout: float = 120) -> bool:
        """Wait until a run of the deployment is at a step, or was too quick and is over."""

        def is_there() -> bool:
            if "COMPLETED" in self.states(flow, case):
                return True
            live = [run["id"] for run in self.runs(flow, case) if run["state_type"] == "RUNNING"]
            return any(each["state_type"] == "RUNNING" for each in self._steps(live, step))

        return wait_for(is_there, timeout, pause=0.05)

    def was_at(self, flow: str, case: str, step: str, at: datetime) -> bool:
        """Did a run of the deployment begin the step before that moment, and end it later or never?"""

        def covers(step: dict[str, Any]) -> bool:
            begun, ended = (each and datetime.fromisoformat(each) for each in (step["start_time"], step["end_time"]))
            return begun is not None and begun <= at <= (ended or at)

        return any(covers(each) for each in self._steps([run["id"] for run in self.runs(flow, case)], step))

    def _steps(self, runs: Sequence[str], step: str) -> list[dict[str, Any]]:
        """The task runs of that name, or whose name begins so."""
        if not runs:
            return []
        wanted = {"flow_runs": {"id": {"any_": runs}}, "task_runs": {"name": {"like_": step}}}
        found = self.http.post("/task_runs/filter", json=wanted).raise_for_status().json()
        return [each for each in found if each["name"].startswith(step)]

    def kill_run(self, flow: str, case: str) -> None:
        """kill -9 of the processes of a deployment's runs."""
        ids = {run["id"] for run in self.runs(flow, case)}
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):  # a fork, which ends with who stands for it
                if process.environ().get("PREFECT__FLOW_RUN_ID") in ids:
                    process.kill()

    def kill_program(self, name: str) -> None:
        """kill -9 of a program of the stack, with whatever its starter started."""
        process = psutil.Process(Supervisor(self.world.state).processes()[name]["pid"])
        for each in [process, *process.children()] if name == "prefect" else [process]:
            each.kill()

    def kill_all(self) -> None:
        """kill -9 of everything that belongs to this world: supervisor, servers, worker, runs, releases."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    @contextmanager
    def store(self) -> Iterator[Store]:
        with closing(Store(self.settings)) as store:
            yield store

    def approvals(self, case: str) -> list[Approval]:
        with self.store() as store:
            return list_approvals(store, case)

    def at_gateway(self, case: str) -> str:
        """The digest of the release that answers for a case."""
        response = httpx.get(f"{self.gateway}/readyz", trust_env=False, verify=False, timeout=30)
        return str(response.raise_for_status().json()["champions"][case])

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("DRIFTLINE_STATE") == str(self.world.state) and process.pid != os.getpid():
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found


@contextmanager
def standing(terminal: Terminal, world: World, *then: str) -> Iterator[World]:
    """The world with its stack up, after some more commands."""
    done = terminal.run(world, "up", *then)
    try:
        assert done.code == 0, done.output
        yield world
    finally:
        down = terminal.run(world, "down")
    assert down.code == 0, down.output
    assert not [name for name, value in world.variables.items() if name.endswith("_PORT") and listens(int(value))]


@contextmanager
def deployed(folder: Path, terminal: Terminal, cases: Sequence[str], channels: str = "") -> Iterator[Home]:
    """A deployed stack, and moving cases that have no champion yet."""
    ports = {f"DRIFTLINE_{name}_PORT": str(free_port()) for name in ("PREFECT", "MLFLOW", "GATEWAY", "WORKER")}
    variables = {"DRIFTLINE_PREFECT_URL": "", "DRIFTLINE_ALERTS": channels, **dict.fromkeys(AUTH_STRINGS, "")}
    world = World(folder, folder / "cases", {**variables, **ports})
    for case in cases:
        make_moving_case(world.cases, case)
    home = Home(world)
    try:
        with standing(terminal, world, "deploy"):
            yield home
    finally:
        home.kill_all()
