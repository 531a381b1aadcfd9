"""A run in a fork is as one in a process of its own: it ends as it ends, is told to end, and dies with who waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tasks.serve.programs import FORKING
from tests.conftest import ROOT
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(not FORKING, reason="forks are for Linux")
SERVER = "from flows.deployed.fork_server import run, serve; serve('{place}', lambda: None, run, 600)"
RUN = """
import os, signal, sys, time
from pathlib import Path

def stop(*_):
    Path("told").touch()
    sys.exit(3)

signal.signal(signal.SIGTERM, stop)
Path("pid").write_text(str(os.getpid()))
print("said", os.environ["WORD"], flush=True)
if sys.argv[1] == "stay":
    time.sleep(60)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("forks")
    program = [sys.executable, "-c", SERVER.format(place=folder / "runs.sock")]
    server = subprocess.Popen(program, cwd=ROOT)
    assert wait_for((folder / "runs.sock").exists, 20)
    yield folder
    server.kill()
    server.wait()


def start(place: Path, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    (folder / "its_run.py").write_text(RUN)
    variables = {"PYTHONPATH": str(folder), "WORD": "a word"}
    command = [sys.executable, "-I", "-S", str(ROOT / "tasks" / "serve" / "forks.py"), str(place / "runs.sock")]
    return subprocess.Popen(
        [*command, "-m", "its_run", *arguments],
        cwd=folder,
        env={**os.environ, **variables},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def forked(folder: Path) -> psutil.Process:
    pid = folder / "pid"
    assert wait_for(lambda: pid.exists() and pid.read_text(), 20)
    return psutil.Process(int(pid.read_text()))


@pytest.mark.parametrize("served", [True, False], ids=["forked", "no-server"])
def test_it_says_and_ends_what_its_module_does(place, tmp_path, served):
    """Where no server answers it is run without one."""
    run = start(place if served else tmp_path, tmp_path, "7")
    said, errors = run.communicate(timeout=60)
    assert (run.returncode, said, errors) == (7, "said a word\n", "")
    assert ((tmp_path / "pid").read_text() == str(run.pid)) is not served


def test_told_to_end_it_ends_in_its_own_way(place, tmp_path):
    run = start(place, tmp_path, "stay")
    forked(tmp_path)
    run.terminate()
    assert run.wait(20) == 3
    assert (tmp_path / "told").exists()


def test_killed_it_is_gone_and_so_is_its_fork(place, tmp_path):
    run = start(place, tmp_path, "stay")
    fork = forked(tmp_path)
    run.kill()
    assert wait_for(lambda: not fork.is_running(), 5)


def test_when_its_fork_is_killed_it_ends_as_killed(place, tmp_path):
    run = start(place, tmp_path, "stay")
    forked(tmp_path).kill()
    assert run.wait(20) == 128 + signal.SIGKILL
