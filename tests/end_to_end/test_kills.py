"""kill -9 of the flow, the worker, the server and of everything, each during each stage of a deployed retrain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flows.deployed.deploy import POOL
from services.runtime.supervision import Supervisor
from tasks.core.processes import with_parent_death_signal
from tests.conftest import ROOT
from tests.end_to_end.home import Home, deployed
from tests.end_to_end.killing import STAGES, VICTIMS, Kill, outlives
from tests.end_to_end.terminal import Terminal
from tests.waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("kills")]

HALVES = tuple(STAGES)[::2], tuple(STAGES)[1::2]  # of the stages, such that those of a row lie apart


def square() -> Iterator[tuple[Kill, ...]]:
    """Latin squares: each row is a retrain that is killed four times, and no kill is in two of them."""
    for stages in HALVES:
        for shift in range(len(VICTIMS)):
            yield tuple(zip([*VICTIMS][shift:] + [*VICTIMS][:shift], stages, strict=True))


ROWS = {f"killed-{number}": row for number, row in enumerate(square())}


@pytest.fixture(scope="module")
def home(tmp_path_factory, terminal: Terminal) -> Iterator[Home]:
    with deployed(tmp_path_factory.mktemp("kills"), terminal, tuple(ROWS)) as home:
        yield home


def test_the_rows_hold_every_kill():
    """Each victim in each stage, once."""
    every = {(victim, stage) for victim in VICTIMS for stage in STAGES}
    assert sorted(kill for row in ROWS.values() for kill in row) == sorted(every)


@pytest.mark.parametrize("case", ROWS, ids=["+".join(f"{v}-{s}" for v, s in row) for row in ROWS.values()])
def test_a_retrain_outlives_them(home, terminal, case):
    home.make_champions(case)
    outlives(home, terminal, case, ROWS[case])


@contextmanager
def another_worker(home: Home) -> Iterator[subprocess.Popen[bytes]]:
    """Prefect's own, of the same pool, as it would be on another machine."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--name", "elsewhere"]
    api = {"PREFECT_API_URL": str(home.http.base_url), "PREFECT_API_AUTH_STRING": ":".join(home.login)}
    with (home.world.folder / "elsewhere.log").open("wb") as output:
        process = subprocess.Popen(
            with_parent_death_signal(command),
            cwd=ROOT,
            env={**os.environ, **home.world.environment, **api, "PREFECT_WORKER_QUERY_SECONDS": "2"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_remote_worker_is_no_hindrance(home):
    """What ours had is started again; what the other has is left alone, until its missing heartbeats tell of it."""
    remote, local, *_ = ROWS
    with Supervisor(home.world.state).rpc() as supervisor, another_worker(home) as remote_worker:
        supervisor.stopProcess("worker")
        run = home.start("train", remote, as_of="2020-02-10T00:00:00Z")
        assert home.reached("train", remote, "validate"), home.runs("train", remote)
        remote_worker.send_signal(signal.SIGSTOP)  # it goes on being online for a while
        home.kill_run("train", remote)
        supervisor.startProcess("worker")

        home.start("train", local, as_of="2020-02-10T00:00:00Z")
        assert home.reached("train", local, "validate"), home.runs("train", local)
        home.kill_program("worker")
        home.kill_run("train", local)
        assert wait_for(lambda: home.states("train", local)[1:] == ["COMPLETED"], 60), home.runs("train", local)
        assert home.states("train", local)[0] == "CRASHED"
        assert home.run(run)["state_type"] == "RUNNING"

        stopped = {"state": {"type": "CRASHED"}, "force": True}  # as the automation says, by then
        home.ask("POST", f"/flow_runs/{run}/set_state", stopped)
        assert wait_for(lambda: home.states("train", remote) == ["CRASHED", "COMPLETED"], 60)
