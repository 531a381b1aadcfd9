"""A changed document from `git push` to the gateway's answer, in a repository, stack and state folder of its own.

    python -m benchmarks.documents [--quick] [--json FILE]

A case of twelve pages answers by extraction. A push corrects one page and deletes another; the clock stops when the
gateway states the correction and no longer what was deleted. --quick pushes once, else three times.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from benchmarks.table import Report, arguments, median
from services.serving.process import free_port
from tasks.core.files import temporary_folder
from tasks.core.settings import LOGIN_SECRET, ROOT

CODE = ("cli/", "flows/", "services/", "tasks/", "deployments/", "requirements", "pyproject", "configs/platform.yaml")
CASE, TIMEOUT = "manual", 600.0  # seconds
PUSHES, QUICK_PUSHES = 3, 1
REQUIRED = {"push_to_answer_s": "<= 60"}


class Home:
    """A repository with the code as it stands, its bare origin with the hook, and a running stack."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "state"
        self.bare, self.repository, self.clone = (folder / name for name in ("origin.git", "repository", "clone"))
        ports = {f"{name}_PORT": free_port() for name in ("PREFECT", "WORKER", "MLFLOW", "GATEWAY")}
        own = {"STATE": self.state, "DATA": folder / "data", "CASES": self.repository / "configs", **ports}
        self.variables = {f"DRIFTLINE_{name}": str(value) for name, value in own.items()}
        self.variables |= {"PYTHONPATH": str(self.repository), "OMP_NUM_THREADS": "1"}
        self.gateway = f"http://127.0.0.1:{ports['GATEWAY_PORT']}"
        self.prefect = f"http://127.0.0.1:{ports['PREFECT_PORT']}/api"

    def create(self) -> None:
        """The repositories, with twelve pages; deployed, and released for the first time."""
        source = self.folder / "source"
        listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
        for name in listed:
            if (name.startswith(CODE) or name == ".gitignore") and (ROOT / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, source / name)
        for number in range(12):
            write_page(source, number, f"The code of door {number} is {1000 + number}.")
        git(self.folder, "init", "--quiet", "--initial-branch=main", str(source))
        commit(source)
        git(self.folder, "clone", "--quiet", "--bare", str(source), str(self.bare))
        for each in (self.repository, self.clone):
            git(self.folder, "clone", "--quiet", str(self.bare), str(each))
        self.driftline("new", CASE, str(self.repository / "pages"))
        git(self.repository, "add", "--all")
        commit(self.repository)
        git(self.repository, "push", "--quiet", "origin", "main")
        git(self.clone, "pull", "--quiet")
        self.driftline("up")
        self.driftline("deploy")
        self.driftline("run", CASE)
        shutil.copy(ROOT / "deployments" / "git" / "post-receive", self.bare / "hooks")
        git(self.bare, "config", "driftline.url", self.prefect)
        git(self.bare, "config", "driftline.auth", str(self.state / "secrets" / LOGIN_SECRET))

    def driftline(self, *command: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *command],
            cwd=self.repository,
            env={**os.environ, **self.variables},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"driftline {' '.join(command)}: {done.stdout[-3000:]}{done.stderr[-3000:]}")

    def answer(self, question: str) -> str:
        body = {"model": CASE, "messages": [{"role": "user", "content": question}], "temperature": 0}
        response = httpx.post(f"{self.gateway}/v1/chat/completions", json=body, timeout=60, trust_env=False)
        return str(response.json()["choices"][0]["message"]["content"]) if response.is_success else response.text

    def push(self, number: int) -> float:
        """Seconds from a push that corrects one page and deletes another to the answers that know it."""
        write_page(self.clone, 0, f"The code of door 0 is {2000 + number}.")
        gone = 11 - number
        (self.clone / "pages" / f"door{gone}.md").unlink()
        question = f"What is the code of door {gone}?"
        assert str(1000 + gone) in self.answer(question)
        git(self.clone, "add", "--all")
        commit(self.clone)
        begun = time.monotonic()
        git(self.clone, "push", "--quiet", "origin", "main")
        wait_for(lambda: str(2000 + number) in self.answer("What is the code of door 0?"))
        seconds = time.monotonic() - begun
        assert str(1000 + gone) not in self.answer(question)
        return seconds

    def steps(self) -> list[tuple[str, float]]:
        """The seconds of each flow and task of the last push, in the order of their ends."""
        login = (self.state / "secrets" / LOGIN_SECRET).read_text(encoding="utf-8").strip()
        with httpx.Client(auth=("driftline", login), timeout=30, trust_env=False) as client:
            runs = client.post(f"{self.prefect}/flow_runs/filter", json={"sort": "EXPECTED_START_TIME_DESC"}).json()
            last = [run for run in runs if run["name"].startswith(("push", "release"))][:2]
            wanted = {"flow_runs": {"id": {"any_": [run["id"] for run in last]}}}
            tasks = client.post(f"{self.prefect}/task_runs/filter", json=wanted).json()
        rows: list[tuple[str, str, float]] = [
            (each["end_time"] or "", each["name"], each["total_run_time"]) for each in (*last, *tasks)
        ]
        waits = [
            (run["start_time"] or "", f"start of {run['name']}", run["estimated_start_time_delta"]) for run in last
        ]
        return [(name, seconds) for _, name, seconds in sorted([*rows, *waits])]


def main() -> int:
    options = arguments("A changed document from `git push` to the gateway's answer.")
    report = Report("Documents: from push to answer", ["what", "seconds"], REQUIRED)
    with temporary_folder("documents") as work:
        home = Home(Path(work))
        try:
            home.create()
            seconds = [home.push(number) for number in range(QUICK_PUSHES if options.quick else PUSHES)]
            for name, taken in home.steps():
                report.row(name, taken)
        finally:
            home.driftline("down")
    for taken in seconds:
        report.row("from push to answer", taken)
    report.figure("push_to_answer_s", median(seconds))
    report.finish(("prefect", "bentoml", "mlflow"), options.json)
    return 0


def write_page(folder: Path, number: int, text: str) -> None:
    (folder / "pages").mkdir(exist_ok=True)
    (folder / "pages" / f"door{number}.md").write_text(f"# Door {number}\n\n{text}\n", encoding="utf-8")


def git(folder: Path, *command: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *command], check=True, capture_output=True, text=True).stdout


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    who = ("-c", "user.name=Nobody", "-c", "user.email=nobody@example.com")
    git(folder, *who, "commit", "--quiet", "--message", "Change the pages")


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {TIMEOUT:.0f} s")
        time.sleep(0.25)


if __name__ == "__main__":
    sys.exit(main())
