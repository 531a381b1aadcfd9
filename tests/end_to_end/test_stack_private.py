"""Promise: another user of this machine can read nothing of a stack's state and data, and reach none of its sockets."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tasks.core.permissions import DVC_OBJECT, OTHERS
from tasks.core.sockets import unix_socket_path
from tests.end_to_end.terminal import Terminal, World

NOBODY, PYTHON = 65534, Path("/usr/bin/python3")  # that of the tests may lie where nobody else can enter
INTRUDER = """
import json, os, socket, sys
reached = []
for path in json.load(sys.stdin):
    try:
        if os.path.isdir(path):
            os.listdir(path)
        elif path.endswith(".sock"):
            socket.socket(socket.AF_UNIX).connect(path)
        else:
            open(path, "rb").close()
        reached.append(path)
    except OSError:
        pass
print(json.dumps(reached))
"""


@pytest.fixture(scope="module")
def world(stack: World, terminal: Terminal) -> World:
    """The stack with a champion that answers, predictions and a decision."""
    done = terminal.run(stack, "up", "run diabetes", "monitor diabetes --as-of 2004-02-10")
    assert done.code == 0, done.output
    return stack


@pytest.fixture(scope="module")
def paths(world: World) -> list[Path]:
    places = [world.state, *(world.data / name for name in ("raw", "predictions") if (world.data / name).exists())]
    found = [path for place in places for path in (place, *place.rglob("*")) if not path.is_symlink()]
    assert {"prefect", "gateway", "bentoml", "logs", "sockets", "mlflow.db", "raw"} <= {path.name for path in found}
    return found


def test_nothing_has_permissions_for_others(paths: list[Path]) -> None:
    """Databases, logs, batches, models, reports; DVC's objects have a mode of their own, in private folders."""
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in paths}
    assert not [f"{mode:o} {path}" for path, mode in modes.items() if mode & OTHERS and mode != DVC_OBJECT]
    assert not [path for path, mode in modes.items() if mode == DVC_OBJECT and path.is_dir()]


@pytest.mark.skipif(os.getuid() != 0 or not PYTHON.exists(), reason="needs root, and a Python that all can run")
def test_another_user_reaches_nothing(world: World, terminal: Terminal, paths: list[Path]) -> None:
    """Even where every folder above lets him pass; and what he could reach, were it open, he does."""
    services = json.loads(terminal.run(world, "status --json").output)["services"]
    sockets = [unix_socket_path(service["address"]) for service in services if unix_socket_path(service["address"])]
    assert sockets
    open_socket = world.folder / "open.sock"
    with passable(world.folder), socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(open_socket))
        open_socket.chmod(0o777)
        listening.listen()
        paths_checked = [*map(str, paths), *sockets, str(open_socket), str(world.cases)]
        done = subprocess.run(
            [PYTHON, "-c", INTRUDER],
            input=json.dumps(paths_checked),
            capture_output=True,
            text=True,
            check=True,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            cwd="/",
        )
    open_socket.unlink()
    assert json.loads(done.stdout) == [str(open_socket), str(world.cases)]


@contextmanager
def passable(folder: Path) -> Iterator[None]:
    """Let everybody pass through the temporary folders of the tests."""
    with ExitStack() as after:
        for each in (folder, *folder.parents):
            mode = stat.S_IMODE(each.stat().st_mode)
            if not mode & 0o001:
                after.callback(each.chmod, mode)
                each.chmod(mode | 0o011)
        yield
