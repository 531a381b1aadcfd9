"""Promise: the processes of releases listen on Unix sockets in the private state folder, and on no TCP port."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import insert, select

from flows.deployed.servers import servers
from services.rollout.shares import sync_endpoints, upsert_release
from services.runtime import stack
from services.runtime.process_specs import release_program, release_program_name
from services.runtime.supervision import Program, Supervisor
from services.serving.package import bento_folder
from services.serving.process import free_port
from services.store.database import Store, endpoints
from tasks.core.mlflow import Tracking
from tasks.core.settings import Settings
from tasks.core.sockets import http_client, unix_socket_path
from tasks.release.registry import register
from tasks.release.results import Release
from tasks.release.seal import read_manifest
from tests.waiting import listens, wait_for

pytestmark = pytest.mark.xdist_group("bento")


@pytest.fixture
def settings(state: Path) -> Iterator[Settings]:
    settings = Settings(
        state=state,
        threads=1,
        prefect_url="http://127.0.0.1:9",
        tracking_url="http://127.0.0.1:9",
        worker=False,
        gateway_port=free_port(),
    )
    yield settings
    stack.down(settings)
    for name in Supervisor(state).programs():
        Supervisor(state).remove(name)


@pytest.fixture
def release(tracking: Tracking, folder: Path, bento: str) -> Release:
    return register(tracking, folder)


def digest_at(address: str) -> str:
    with http_client(address) as client:
        return str(client.get("/release").raise_for_status().json()["release"])


def test_no_process_of_a_release_has_a_port(settings: Settings, release: Release) -> None:
    """Neither who is supervised nor its fork; the socket is its owner's alone, and another release has another one."""
    address = stack.serve_release(settings, release)
    path = Path(unix_socket_path(address))
    assert path.is_relative_to(settings.state / "sockets")
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    supervised = psutil.Process(Supervisor(settings.state).pid() or 0)
    processes = supervised.children(recursive=True)
    assert len(processes) >= 2
    assert [each.net_connections("inet") for each in processes] == [[]] * len(processes)
    assert digest_at(address) == release.digest
    other = release.model_copy(update={"digest": "f" * 64})
    assert release_program(settings, other, None, None).socket != str(path)


def test_a_killed_release_answers_at_its_socket_again(settings: Settings, release: Release) -> None:
    """kill -9 leaves the socket's file behind, which the next process replaces."""
    address = stack.serve_release(settings, release)
    name = release_program_name(release.case, release.digest)
    pid = Supervisor(settings.state).processes()[name]["pid"]
    os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: Supervisor(settings.state).processes()[name]["pid"] not in (0, pid))
    assert wait_for(lambda: digest_at(address) == release.digest)


def test_a_release_of_an_earlier_version_moves_to_a_socket(settings: Settings, release: Release) -> None:
    """One that ran on a port when the stack was upgraded, and one that the next start finds; routes follow."""
    supervisor, port = Supervisor(settings.state), free_port()
    bento = bento_folder(settings.state / "bentoml", release.bento)
    command = [sys.executable, "-m", "bentoml", "serve", str(bento), "--host", "127.0.0.1", "--port", str(port)]
    home = {"BENTOML_HOME": str(settings.state / "homes")}
    name = release_program_name(release.case, release.digest)
    old = Program(name=name, command=command, host="127.0.0.1", port=port, health="/readyz", environment=home)

    supervisor.put(old)
    stack.down(settings)
    supervisor.start({})
    assert wait_for(lambda: httpx.get(f"{old.address}/readyz").is_success, 60)
    with closing(Store(settings)) as store:
        upsert_release(store, read_manifest(release.folder))
        with store.changing() as to:
            to.execute(insert(endpoints).values(digest=release.digest, address=old.address))
        stack.start(settings, servers(settings))
        assert supervisor.programs()[name] == old, "it answers until its turn comes"
        stack.restart(settings, name)
        sync_endpoints(store, settings)
        with store.reading() as of:
            (address,) = of.execute(select(endpoints.c.address)).scalars()
    assert digest_at(address) == release.digest
    assert not listens(port)

    stack.down(settings)
    supervisor.put(old)
    stack.start(settings, servers(settings))
    assert wait_for(lambda: digest_at(address) == release.digest, 60)
    assert stack.release_address(settings, release) == address
    assert not listens(port)
