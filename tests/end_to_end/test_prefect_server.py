"""The stack's own Prefect server with its runs in a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from services.serving.process import free_port
from tests.end_to_end.home import standing
from tests.end_to_end.small import make_case
from tests.end_to_end.terminal import Terminal, World
from tests.postgres import Postgres, places, running_postgres


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    if not places("postgres"):
        pytest.skip("no Postgres is installed")
    with running_postgres() as running:
        yield running


@pytest.fixture(scope="module")
def world(tmp_path_factory, terminal: Terminal, postgres) -> Iterator[World]:
    """A stack of its own, as `driftline up` starts it."""
    ports = {f"DRIFTLINE_{name}_PORT": str(free_port()) for name in ("PREFECT", "MLFLOW", "GATEWAY", "WORKER")}
    variables = {"DRIFTLINE_PREFECT_URL": "", "DRIFTLINE_PREFECT_DATABASE": postgres.url, **ports}
    folder = tmp_path_factory.mktemp("own")
    created = World(folder, folder / "cases", variables)
    make_case(created.cases)
    with standing(terminal, created):
        yield created


def test_runs_live_in_postgres(world, terminal, postgres):
    """With a database URL the server, and a run without the stack, keep their runs there; no SQLite file is made."""
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
