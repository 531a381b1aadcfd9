"""The servers and worlds of the end-to-end tests, each made once for a test process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.serving.process import free_port
from tests.end_to_end.home import standing
from tests.end_to_end.small import make_case, make_dated_case
from tests.end_to_end.terminal import Terminal, World, cold


@pytest.fixture(scope="session")
def warm(tmp_path_factory) -> Iterator[Terminal]:
    """For worlds with a Prefect server of their own."""
    created = Terminal(tmp_path_factory.mktemp("terminal"))
    yield created
    created.close()


@pytest.fixture(scope="session")
def terminal(warm, prefect_server) -> Terminal:
    """For worlds that have none: the one of this test process is found at its port."""
    return warm


@pytest.fixture(scope="session")
def world(tmp_path_factory, terminal) -> World:
    """A world in which the small case has a champion, made by one cold process; `first.txt` is what it said."""
    folder = tmp_path_factory.mktemp("small")
    created = World(folder, folder / "cases")
    make_case(created.cases)
    done = cold(created, "run diabetes")
    assert done.code == 0, done.output
    (folder / "first.txt").write_text(done.output)
    return created


@pytest.fixture(scope="session")
def stack(tmp_path_factory, terminal, prefect_server) -> Iterator[World]:
    """A world whose stack runs, and a small case that had a champion before; Prefect's server is the tests' own."""
    folder = tmp_path_factory.mktemp("stack")
    ports = {f"DRIFTLINE_{name}_PORT": str(free_port()) for name in ("MLFLOW", "GATEWAY", "WORKER")}
    keeps = {"PYTHONDONTWRITEBYTECODE": ""}  # as at most people's: bytecode lies beside the code, and names its place
    created = World(folder, folder / "cases", {"DRIFTLINE_PREFECT_URL": prefect_server, **ports, **keeps})
    make_dated_case(created.cases)
    done = terminal.run(created, "run diabetes")
    assert done.code == 0, done.output
    with standing(terminal, created):
        yield created
