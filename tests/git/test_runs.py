"""From a push to the run of its commit: real repositories, a real Prefect server and worker, and a small case."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from services.runtime.prefect_database import seed
from services.serving.process import free_port
from tasks.core.local_secrets import local_secret, secret_file
from tasks.core.mlflow import Tracking, mlflow_client
from tasks.core.processes import current_user, with_parent_death_signal
from tasks.core.settings import LOGIN_SECRET, LOGIN_USER
from tasks.release.registry import load_champion
from tasks.release.seal import verify
from tests.conftest import ROOT
from tests.end_to_end.small import change_case, make_case
from tests.git.listener import commit, git
from tests.waiting import ask, wait_for


class Stack:
    """Our repository with two cases, its bare origin with the hook, a developer's clone; Prefect's server, a worker."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.state, self.repository, self.clone = folder / "state", folder / "ours", folder / "clone"
        self.bare = folder / "bare.git"
        self._make_repositories()
        login = f"{LOGIN_USER}:{local_secret(self.state, LOGIN_SECRET)}"
        self.http = httpx.Client(base_url=self.api, auth=tuple(login.split(":")), timeout=30, trust_env=False)
        own = {"STATE": self.state, "DATA": folder / "data", "PREFECT_PORT": self.port, "WORKER_PORT": free_port()}
        self.variables = {f"DRIFTLINE_{name}": str(value) for name, value in own.items()} | {
            "PYTHONPATH": str(self.repository),
            "PREFECT_SERVER_API_AUTH_STRING": "",
        }

    def _make_repositories(self) -> None:
        """The code as it stands here, uncommitted changes too, with two small cases in place of ours."""
        source = self.folder / "source"
        for name in git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
            if (ROOT / name).is_file() and name.startswith(
                ("cli/", "flows/", "services/", "tasks/", "deployments/", "requirements", "pyproject")
            ):
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, source / name)
        shutil.copy(ROOT / ".gitignore", source)
        make_case(source / "configs")
        make_case(source / "configs", "other")
        shutil.copy(ROOT / "configs" / "platform.yaml", source / "configs")
        git(self.folder, "init", "--quiet", "--initial-branch=main", str(source))
        commit(source)
        git(self.folder, "clone", "--quiet", "--bare", str(source), str(self.bare))
        for clone in (self.repository, self.clone):
            git(self.folder, "clone", "--quiet", str(self.bare), str(clone))
        shutil.copy(ROOT / "deployments" / "git" / "post-receive", self.bare / "hooks")
        git(self.bare, "config", "driftline.url", self.api)
        git(self.bare, "config", "driftline.auth", str(secret_file(self.state, LOGIN_SECRET)))

    @contextmanager
    def running(self, name: str, *command: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        with (self.folder / f"{name}.log").open("ab") as output:
            process = subprocess.Popen(
                with_parent_death_signal([sys.executable, "-m", *command]),
                cwd=self.repository,
                env={**os.environ, **self.variables, "OMP_NUM_THREADS": "1", **variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with ExitStack() as stack:
                stack.callback(os.killpg, process.pid, signal.SIGKILL)
                process.terminate()
                process.wait(20)
                stack.pop_all()

    @contextmanager
    def server(self) -> Iterator[subprocess.Popen[bytes]]:
        home = self.state / "prefect"
        quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PREFECT_HOME": str(home)}
        with self.running("server", "services.runtime.prefect_server", "127.0.0.1", str(self.port), **quiet) as process:
            assert wait_for(lambda: self.http.get("/health").is_success, 120), self.log("server")
            yield process

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def driftline(self, *command: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *command],
            cwd=self.repository,
            env={**os.environ, **self.variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def push(self, *what: str) -> None:
        began = time.monotonic()
        git(self.clone, "push", "--quiet", "origin", *what)
        assert time.monotonic() - began < 1

    def runs(self) -> dict[str, list[dict]]:
        """All runs that there are, the oldest first, by flow and case."""
        names = {each["id"]: each["name"] for each in ask(self.http, "POST", "/deployments/filter", {})}
        found: dict[str, list[dict]] = {}
        for run in ask(self.http, "POST", "/flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC"}):
            entry = run["name"].partition(" ")[0] if run["state_type"] == "COMPLETED" else run["state_name"]
            found.setdefault(f"{entry}/{names[run['deployment_id']]}", []).append(run)
        return found

    def counts(self) -> dict[str, int]:
        return {name: len(runs) for name, runs in self.runs().items()}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Deployed, and the worker running; the server was killed and is dead."""
    stack = Stack(tmp_path_factory.mktemp("pushes"))
    (stack.state / "prefect").mkdir(parents=True)
    seed(stack.state / "prefect")
    with stack.server() as server:
        stack.driftline("deploy")
        os.killpg(server.pid, signal.SIGKILL)
    with stack.running("worker", "flows.deployed.worker", stack.variables["DRIFTLINE_WORKER_PORT"]):
        yield stack


def test_pushes_start_the_runs_that_they_ask_for_at_their_commit(stack: Stack):
    """Pushed while the server is dead: delivered when it is back. A change of one case trains that case, with the code
    and configuration of that commit, once, however often it is told; a tag releases; documents start none.
    """
    before, files = git(stack.repository, "rev-parse", "HEAD"), git(stack.repository, "status", "--porcelain")
    change_case(stack.clone / "configs" / "diabetes", train__parameters={"alpha": 0.25})
    configured = commit(stack.clone)
    stack.push("main")
    documented = commit(stack.clone, docs__x_md="Words.")
    stack.push("main")
    git(stack.clone, "tag", "--annotate", "--message", "x", "diabetes-v1", configured)
    stack.push("diabetes-v1")
    (waiting, *_) = sorted((stack.bare / "driftline").glob("*.json"))
    text = waiting.read_text()
    with stack.server():
        expected = {"push/push": 3, "train/diabetes": 1, "release/diabetes": 1}
        assert wait_for(lambda: stack.counts() == expected, 300), f"{stack.counts()}\n{stack.log('worker')[-5000:]}"
        runs = stack.runs()
        tag = git(stack.clone, "rev-parse", "diabetes-v1")
        assert {run["parameters"]["request"]["new"] for run in runs["push/push"]} == {configured, documented, tag}
        (train,) = runs["train/diabetes"]
        assert configured[:12] in train["tags"]
        assert train["parameters"]["request"] == {"case": "diabetes", "by": current_user(), "commit": configured}

        found = load_champion(Tracking.in_folder(stack.state), stack.state, "diabetes")
        sealed = verify(found.folder)["sealed"]
        assert (sealed["commit"], sealed["dirty"]) == (configured, False)
        client = mlflow_client(Tracking.in_folder(stack.state))
        (trained,) = client.search_runs([client.get_experiment_by_name("diabetes").experiment_id])
        assert trained.data.tags["driftline.commit"] == configured != before
        assert trained.data.tags["driftline.dirty"] == "false"
        assert trained.data.params["parameters.alpha"] == "0.25"
        assert (git(stack.repository, "rev-parse", "HEAD"), git(stack.repository, "status", "--porcelain")) == (
            before,
            files,
        )

        waiting.write_text(text)
        subprocess.run([stack.bare / "hooks" / "post-receive", "--deliver"], timeout=20, check=True)
        assert not waiting.exists()
        push = stack.http.get("/deployments/name/push/push").json()["id"]
        again = {"parameters": runs["push/push"][0]["parameters"], "idempotency_key": "by hand"}
        ask(stack.http, "POST", f"/deployments/{push}/create_flow_run", again)
        assert wait_for(lambda: stack.counts().get("push/push") == 4, 60), stack.counts()
        assert stack.counts() == expected | {"push/push": 4}
