"""The stack's own Prefect server: guarded by an auth string, and with its runs in a real PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import httpx
import pytest

from tasks.release.process import free_port
from tests.end_to_end.small import make_case
from tests.end_to_end.terminal import Terminal, World
from tests.postgres import Postgres, places, running_postgres
from tests.waiting import wait_for

AUTH, WRONG = "admin:hunter2", "admin:other"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres | None]:
    with running_postgres() if places("postgres") else nullcontext() as running:
        yield running


@pytest.fixture(scope="module")
def world(tmp_path_factory, terminal: Terminal, postgres) -> Iterator[World]:
    """A stack of its own, as `driftline up` starts it."""
    ports = {f"DRIFTLINE_{name}_PORT": str(free_port()) for name in ("PREFECT", "MLFLOW", "GATEWAY", "WORKER")}
    variables = {
        "DRIFTLINE_PREFECT_URL": "",
        "DRIFTLINE_PREFECT_DATABASE": postgres.url if postgres else "",
        "PREFECT_SERVER_API_AUTH_STRING": AUTH,
        **ports,
    }
    folder = tmp_path_factory.mktemp("own")
    made = World(folder, folder / "cases", variables)
    make_case(made.cases)
    done = terminal.run(made, "up")
    try:
        assert done.code == 0, done.output
        yield made
    finally:
        assert terminal.run(made, "down").code == 0


def api_of(world: World) -> str:
    return f"http://127.0.0.1:{world.variables['DRIFTLINE_PREFECT_PORT']}/api"


def runs_at(world: World, **more: str) -> httpx.Response:
    """What the server answers to whoever asks for the flow runs."""
    return httpx.post(f"{api_of(world)}/flow_runs/filter", json={}, trust_env=False, verify=False, timeout=30, **more)


def test_a_guarded_server_works_from_every_entry_point(world, terminal):
    """With its auth string runs, the worker and status reach the server, without one nobody; no file has it."""
    owner = tuple(AUTH.split(":"))
    assert runs_at(world).status_code == runs_at(world, auth=tuple(WRONG.split(":"))).status_code == 401
    done = terminal.run(world, "prepare diabetes")
    assert done.code == 0, done.output
    (run,) = runs_at(world, auth=owner).json()
    assert (run["name"], run["state_name"]) == ("prepare diabetes", "Completed")

    done = terminal.run(world, "deploy")
    assert done.code == 0, done.output
    with httpx.Client(base_url=api_of(world), auth=owner, trust_env=False, verify=False, timeout=30) as http:
        deployed = http.get("/deployments/name/prepare/diabetes").raise_for_status().json()["id"]
        made = http.post(f"/deployments/{deployed}/create_flow_run", json={}).raise_for_status().json()["id"]
        assert wait_for(lambda: http.get(f"/flow_runs/{made}").json()["state_name"] == "Completed", 120)

    status = json.loads(terminal.run(world, "status --json").output)
    assert status["runs"] == {"running": [], "broken": [], "late": []}
    assert not status["unknown"]

    for variable, found in ((WRONG, "another auth string"), ("", "no auth string")):
        stranger = World(world.folder, world.cases, {**world.variables, "PREFECT_SERVER_API_AUTH_STRING": variable})
        done = terminal.run(stranger, "prepare diabetes")
        assert done.code == 5, done.output
        assert found in done.output
        told = terminal.run(stranger, "status")
        assert told.code == 0
        assert "demands another auth string" in told.output

    services = [each["pid"] for each in status["services"]]
    commands = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in services if pid)
    assert b"prefect" in commands
    assert b"hunter2" not in commands
    written = [path for path in world.folder.rglob("*") if path.is_file()]
    assert not [path for path in written if b"hunter2" in path.read_bytes()]


def test_runs_live_in_postgres(world, terminal, postgres):
    """With a database URL the server, and a run without the stack, keep their runs there; no SQLite file is made."""
    if postgres is None:
        pytest.skip("no Postgres is installed")
    import psycopg

    secret = postgres.url.split("@")[1]
    written = [path for path in (world.state / "supervisor").rglob("*.*") if path.is_file()]
    assert not [path for path in written if secret in path.read_text()]
    alone = World(world.folder, world.cases, {**world.variables, "DRIFTLINE_PREFECT_PORT": str(free_port())})
    days = {"2003-12-30": world, "2003-12-31": alone}  # alone: on a server that the run starts for itself
    for day, where in days.items():
        done = terminal.run(where, f"prepare diabetes --as-of {day}")
        assert done.code == 0, done.output
    with psycopg.connect(postgres.url.replace("+psycopg", "")) as db:
        query = "SELECT name, state_name FROM flow_run WHERE name LIKE '%as of%' ORDER BY created"
        found = db.execute(query).fetchall()
    assert found == [(f"prepare diabetes as of {day} 00:00", "Completed") for day in days]
    assert not (world.state / "prefect" / "prefect.db").exists()
