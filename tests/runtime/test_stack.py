from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flows.deployed.servers import servers
from services.runtime import stack
from services.runtime.process_specs import FORKS, release_program_name
from services.runtime.results import Service
from services.runtime.supervision import Program, Supervisor
from services.serving.process import free_port
from services.serving.smoke import smoke
from tasks.core.errors import DriftlineError, Unavailable
from tasks.core.mlflow import Tracking
from tasks.core.settings import ROOT, Settings
from tasks.core.sockets import http_client
from tasks.release.registry import register
from tests.waiting import listens, wait_for

pytestmark = pytest.mark.xdist_group("bento")


@pytest.fixture
def settings(state: Path) -> Iterator[Settings]:
    settings = Settings(state=state, threads=1)
    yield settings
    stack.down(settings)
    for name in Supervisor(state).programs():
        Supervisor(state).remove(name)


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    """With one light program, a file server."""
    supervisor = Supervisor(tmp_path / "state")
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    supervisor.put(Program(name="files", command=command, host="127.0.0.1", port=port, health="/pyproject.toml"))
    yield supervisor
    supervisor.stop()


def test_the_old_release_answers_until_the_new_one_does(
    settings: Settings, tracking: Tracking, folder: Path, second: Path, bento: str
) -> None:
    """Two releases side by side, each on its own socket; the old one goes when told, and nothing stays after down."""
    old, new = register(tracking, folder), register(tracking, second)
    first = stack.serve_release(settings, old)
    pid = _service(settings, old.digest).pid
    assert stack.serve_release(settings, old) == first
    assert _service(settings, old.digest).pid == pid, "a served release keeps its process"

    address = stack.serve_release(settings, new)
    assert address != first
    assert _answers(first) == old.digest
    assert _answers(address) == new.digest
    assert stack.release_address(settings, new) == address
    with pytest.raises(DriftlineError, match=r"Another release answers(.|\n)*Service small initialized"):
        smoke(new.folder, first, Supervisor(settings.state).log(release_program_name("small", old.digest)))
    assert stack.retire_releases(settings, "small", [new.digest]) == [release_program_name("small", old.digest)]
    with pytest.raises(httpx.TransportError):
        _answers(first)
    assert _answers(address) == new.digest

    assert stack.down(settings)
    assert not stack.down(settings)
    with pytest.raises(httpx.TransportError):
        _answers(address)
    assert {service.state for service in stack.list_services(settings)} == {"stopped"}

    assert stack.serve_release(settings, new) == address
    assert _answers(address) == new.digest


def test_a_release_that_can_not_start_is_removed(
    settings: Settings, tracking: Tracking, folder: Path, bento: str
) -> None:
    """The end of its log tells why, at once, and it does not try for ever."""
    release = register(tracking, folder).model_copy(update={"bento": "small:nothere", "digest": "f" * 64})
    start = time.monotonic()
    with pytest.raises(Unavailable, match="nothere"):
        stack.serve_release(settings, release)
    assert time.monotonic() - start < 40
    assert [service.name for service in stack.list_services(settings)] == [FORKS]


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    """With the setting that changes it; nothing is started."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings = Settings(state=tmp_path, prefect_port=free_port(), mlflow_port=port)
        with pytest.raises(Unavailable, match=rf"Port {port}, for mlflow(.|\n)*DRIFTLINE_MLFLOW_PORT"):
            stack.up(settings, servers(settings))
        assert Supervisor(tmp_path).pid() is None


def test_programs_start_with_the_supervisor_and_end_with_it_even_killed(supervisor: Supervisor) -> None:
    """kill -9 of the supervisor leaves no server on its port, so that the next start finds it free."""
    supervisor.start({})
    program = supervisor.programs()["files"]
    address, port = program.address, program.port
    assert wait_for(lambda: httpx.get(f"{address}/pyproject.toml").is_success)
    os.kill(supervisor.processes()["files"]["pid"], signal.SIGKILL)
    assert wait_for(lambda: httpx.get(f"{address}/pyproject.toml").is_success), "a program that dies is started again"
    os.kill(supervisor.pid() or 0, signal.SIGKILL)
    assert wait_for(lambda: not listens(port))
    assert supervisor.pid() is None
    supervisor.start({})
    assert wait_for(lambda: httpx.get(f"{address}/pyproject.toml").is_success)
    assert supervisor.stop()
    assert not listens(port)


def test_a_long_or_odd_path_to_the_state_works(tmp_path: Path) -> None:
    """Unix sockets take 108 bytes; and supervisord's own file gives a meaning to %, quotes and blanks."""
    supervisor = Supervisor(tmp_path / ("x" * 120) / "100% of it's state")
    assert len(str(supervisor.socket)) < 90
    command = [sys.executable, "-c", "import os,time;print(os.environ['PLACE'],flush=True);time.sleep(60)", "a b%c'd"]
    program = Program(name="odd", command=command, host="127.0.0.1", port=1, health="/")
    supervisor.put(program.model_copy(update={"environment": {"PLACE": str(supervisor.folder)}}))
    supervisor.start({})
    try:
        assert wait_for(lambda: str(supervisor.folder) in supervisor.log("odd").read_text())
        assert oct(supervisor.folder.stat().st_mode & 0o777) == oct(supervisor.socket.parent.stat().st_mode & 0o777)
        assert supervisor.folder.stat().st_mode & 0o077 == 0
    finally:
        assert supervisor.stop()
    assert not supervisor.socket.exists()


def test_no_secret_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers get them by their environment, not by a configuration or a command line."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    settings = Settings(state=tmp_path, tracking_url="postgresql://user:hunter2@db/mlflow")
    supervisor = Supervisor(tmp_path)
    for program, _ in servers(settings):
        supervisor.put(program)
    assert len(supervisor.programs()) == 4
    for path in tmp_path.rglob("*.*"):
        assert "hunter2" not in path.read_text()


def test_a_copied_prefect_database_is_the_migrated_one(tmp_path: Path) -> None:
    """The server finds nothing left to migrate, and a database that is there is never replaced."""
    from services.runtime.prefect_database import seed

    assert seed(tmp_path / "home")
    assert not seed(tmp_path / "home")
    code = (
        "import sqlite3,sys;print(sqlite3.connect(sys.argv[1]).execute('select count(*) from flow_run').fetchone()[0])"
    )
    path = tmp_path / "home" / "prefect.db"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout) == 0


def _service(settings: Settings, digest: str) -> Service:
    return next(service for service in stack.list_services(settings) if service.name.endswith(digest[:12]))


def _answers(address: str) -> str:
    with http_client(address) as client:
        return client.get("/release").json()["release"]
