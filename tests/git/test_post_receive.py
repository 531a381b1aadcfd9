"""The hook of a bare repository, with real pushes: it never stalls one, and what it was told of arrives."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from services.serving.process import free_port
from tasks.core.git_push import GitPush
from tasks.core.settings import ROOT
from tests.git.listener import commit, git, prefect_at, repositories
from tests.waiting import wait_for


class Hooked:
    """A bare repository with the hook in place, and a clone of it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.bare, self.clone = repositories(folder)
        self.hook = self.bare / "hooks" / "post-receive"
        self.spool = self.bare / "driftline"
        shutil.copy(ROOT / "deployments" / "git" / "post-receive", self.hook)
        git(self.bare, "config", "driftline.url", f"http://127.0.0.1:{self.port}/api")

    def push(self, *what: str) -> float:
        """Push, and give its seconds."""
        began = time.monotonic()
        git(self.clone, "push", "--quiet", "origin", *what)
        return time.monotonic() - began

    @property
    def waiting(self) -> list[Path]:
        return sorted(self.spool.glob("*.json"))

    def deliverers(self) -> list[int]:
        """Processes that deliver from this repository, or are about to."""
        mine = str(self.bare)
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if b"post-receive" in (entry / "cmdline").read_bytes() and os.readlink(entry / "cwd") == mine:
                    found.append(int(entry.name))
            except OSError:
                pass
        return found

    def kill(self) -> None:
        """kill -9, those too that one of them starts meanwhile."""

        def all_gone() -> bool:
            found = self.deliverers()
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not found

        assert wait_for(all_gone)


@pytest.fixture
def hooked(tmp_path: Path):
    hooked = Hooked(tmp_path)
    yield hooked
    hooked.kill()


def test_a_push_is_delivered_with_its_details(hooked: Hooked):
    """As our model of a push has it, in a run that Prefect knows again; other branches and deleted refs are not."""
    old = git(hooked.clone, "rev-parse", "HEAD")
    new = commit(hooked.clone, docs__x_md='a "quoted" name')
    with prefect_at(hooked.port) as prefect:
        git(hooked.clone, "branch", "mine")
        git(hooked.clone, "tag", 'a-"ü"-v1')
        hooked.push("mine", "main", "--tags")
        assert wait_for(lambda: len(prefect.received) == 2)
        hooked.push("--delete", 'a-"ü"-v1', "mine")
        assert wait_for(lambda: not hooked.deliverers())
        assert sorted(prefect.refs) == ["refs/heads/main", 'refs/tags/a-"ü"-v1']
        delivered = next(body for body in prefect.received if body["parameters"]["request"]["ref"] == "refs/heads/main")
    push = GitPush.model_validate(delivered["parameters"]["request"])
    assert (push.old, push.new, push.repository) == (old, new, "bare.git")
    assert push.pusher
    assert delivered == push.run
    assert not hooked.waiting


@pytest.mark.parametrize("server", ["refuses", "never answers"])
def test_a_dead_server_stalls_no_push_and_hears_of_it_later(hooked: Hooked, server: str):
    """Each push takes less than a second; all arrive in their order once the server is back, with no further push."""
    listening = socket.socket()
    if server == "never answers":
        listening.bind(("127.0.0.1", hooked.port))
        listening.listen(5)
    for number in range(3):
        commit(hooked.clone, file_txt=str(number))
        assert hooked.push("main") < 1
    assert len(hooked.waiting) == 3
    listening.close()
    with prefect_at(hooked.port) as prefect:
        assert wait_for(lambda: len(prefect.received) == 3, 40)
        assert wait_for(lambda: not hooked.waiting)
    new = git(hooked.clone, "rev-list", "--reverse", "-3", "HEAD").split()
    assert [body["parameters"]["request"]["new"] for body in prefect.received] == new


@pytest.mark.parametrize("taken_up_by", ["the next push", "--deliver"])
def test_what_a_killed_deliverer_left_is_taken_up(hooked: Hooked, taken_up_by: str):
    """kill -9 loses nothing; one deliverer at a time."""
    for number in range(2):
        commit(hooked.clone, file_txt=str(number))
        hooked.push("main")
    assert wait_for(hooked.deliverers)
    hooked.kill()
    assert len(hooked.waiting) == 2
    with prefect_at(hooked.port) as prefect:
        time.sleep(0.3)
        assert not prefect.received, "somebody still delivers"
        if taken_up_by == "--deliver":
            variables = {name: value for name, value in os.environ.items() if name != "GIT_DIR"}
            subprocess.run([hooked.hook, "--deliver"], env=variables, cwd="/", timeout=20, check=True)
            assert len(prefect.received) == 2
        else:
            commit(hooked.clone, file_txt="2")
            hooked.push("main")
            assert wait_for(lambda: len(prefect.received) == 3)


def test_a_server_with_a_password_and_one_that_refuses(hooked: Hooked, tmp_path: Path):
    """Without the right password a push waits; what the server will never take is set aside, and stops nobody."""
    secret = tmp_path / "auth"
    secret.write_text('ada:wr"ong\\\n')
    git(hooked.bare, "config", "driftline.auth", str(secret))
    commit(hooked.clone, file_txt="1")
    with prefect_at(hooked.port, auth='ada:ri"ght\\') as prefect:
        hooked.push("main")
        assert wait_for(lambda: (hooked.spool / "waits").exists())
        assert " 401 " in (hooked.spool / "waits").read_text()
        assert not prefect.received
        secret.write_text('ada:ri"ght\\\n')
        assert wait_for(lambda: prefect.received)
        prefect.status = 422
        commit(hooked.clone, file_txt="2")
        hooked.push("main")
        assert wait_for(lambda: list((hooked.spool / "refused").glob("*.json")))
        prefect.status = 201
        commit(hooked.clone, file_txt="3")
        hooked.push("main")
        assert wait_for(lambda: len(prefect.received) == 2 and not hooked.waiting)


def test_pushes_at_once_lose_none_and_send_none_twice(hooked: Hooked, tmp_path: Path):
    """Tags pushed by five at once, while the server comes back: each arrives once."""
    head = git(hooked.clone, "rev-parse", "HEAD")
    pushes = [
        subprocess.Popen(["git", "push", "--quiet", "origin", f"{head}:refs/tags/v{number}"], cwd=hooked.clone)
        for number in range(5)
    ]
    time.sleep(0.1)
    with prefect_at(hooked.port) as prefect:
        assert [each.wait(20) for each in pushes] == [0] * 5
        assert wait_for(lambda: len(prefect.received) >= 5 and not hooked.waiting and not hooked.deliverers(), 40)
    assert sorted(prefect.refs) == [f"refs/tags/v{number}" for number in range(5)]
