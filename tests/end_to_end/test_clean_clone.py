"""Promise: no command changes a file that git tracks, whatever cases its user adds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.main import app
from services.serving.process import free_port
from tasks.core.settings import AUTH_STRINGS
from tests.conftest import ROOT
from tests.end_to_end.shop import write_shop
from tests.git.listener import commit, git

CASE = "mine"
QUICK = (  # with Prefect's server alone
    "new {case} {file} --target spent",
    "validate {case}",
    "deploy",
    "status",
    "doctor",
    "backup {folder}/quick.tar.gz",
    "remove {case} --yes",
)
LONG = (
    "up",
    "prepare {case}",
    "train {case}",
    "run {case}",
    "deploy",
    "release {case}",
    "import-model {case} {file}",
    "import {case} {file}",
    "predict {case}",
    "predict {case} {file}",
    "monitor {case}",
    "outcomes {case} {file}",
    "retrain {case}",
    "backtest {case} --from 2020-01-01 --to 2020-02-01",
    "replay {case} --from 2020-01-01 --to 2020-02-01",
    "show {case}",
    "snapshot pin {case}",
    "pin {case}",
    "rollout {case}",
    "promote {case}",
    "rollback {case}",
    "approve {case} --evidence x",
    "reject {case} --evidence x",
    "chat {case}",
    "search start {case} --budget 60s",
    "search show {case}",
    "search adopt {case} 0",
    "prompt list {case}",
    "prompt show {case}",
    "prompt diff {case} 1 2",
    "prompt render {case} hello",
    "prompt test {case}",
    "prompt history {case}",
    "prompt optimize {case} --budget 20-calls",
    "ask {case} why",
    "vllm {case}",
    "costs",
    "guard check {case} {file}",
    "guard diff {case}",
    "guard report {case}",
    "guard test {case}",
    "guard train {case}",
    "knowledge build {case}",
    "knowledge search {case} question",
    "knowledge find text",
    "knowledge status {case}",
    "audit list",
    "audit verify",
    "audit anchor x",
    "why x",
    "history {case}",
    "verdict {case} --recompute",
    "reproduce {case}",
    "retract {case} --row x",
    "signature create {case}",
    "signature verify {case}",
    "signature export {case} x --key {file}",
    "gates selftest {case}",
    "gates mitigations {case}",
    "card {case}",
    "report {case}",
    "keys create --team t --role predict",
    "keys list",
    "keys team t --budget 1",
    "keys owner x me",
    "keys labels x a",
    "keys revoke x",
    "demo {case} --months 1",
    "backup {folder}/long.tar.gz",
    "restart",
    "status",
    "remove {case} --yes",
    "down",
    "restore {folder}/long.tar.gz",
)


class Clone:
    """The code as it stands, in a repository of its own, whose work tree is clean."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.repository = folder, folder / "clone"
        for name in git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
            if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/")):
                (self.repository / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.repository / name)
        git(folder, "init", "--quiet", "--initial-branch=main", str(self.repository))
        self.head = commit(self.repository)
        self.file = write_shop(folder / "order.csv")
        of_tests = ("DRIFTLINE_STATE", "DRIFTLINE_DATA", "DRIFTLINE_CASES", "PYTHONPATH")
        self.variables = {name: value for name, value in os.environ.items() if name not in of_tests}

    def run(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        words = command.format(case=CASE, file=self.file, folder=self.folder).split()
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *words],
            cwd=self.repository,
            env={**self.variables, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def check(self, command: str) -> None:
        """See that nothing tracked has changed, staged or not, nor been committed."""
        changed = git(self.repository, "status", "--porcelain", "--untracked-files=no")
        assert not changed, f"driftline {command} changed:\n{changed}"
        assert git(self.repository, "rev-parse", "HEAD") == self.head


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def verbs() -> Iterator[str]:
    """All that `driftline` has."""
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        yield from (f"{name} {each}" for each in command.commands) if hasattr(command, "commands") else [name]


def test_every_verb_is_tried():
    commands = [*QUICK, *LONG]
    assert not [verb for verb in verbs() if not any(f"{each} ".startswith(f"{verb} ") for each in commands)]


def test_quick_verbs_change_no_tracked_file(clone: Clone, prefect_server: str):
    """With a case of its own, which `deploy` declares too."""
    for command in QUICK:
        own_port = {"DRIFTLINE_PREFECT_PORT": str(free_port())} if command == "doctor" else {}
        done = clone.run(command, **own_port)  # the tests' own server holds the other one, which doctor reports
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == 0, done.stdout + done.stderr
        clone.check(command)
    declared = (clone.repository / ".driftline" / "prefect.yaml").read_text()
    assert f"name: {CASE}\n" in declared


@pytest.mark.long
def test_all_verbs_change_no_tracked_file(clone: Clone):
    """From `up` to `down`, with a champion; releases are sealed as of a clean tree."""
    ports = {f"DRIFTLINE_{name}_PORT": str(free_port()) for name in ("PREFECT", "MLFLOW", "GATEWAY", "WORKER")}
    own = {**ports, **dict.fromkeys(AUTH_STRINGS, "")}
    assert clone.run(QUICK[0], **own).returncode == 0
    try:
        for command in LONG:
            done = clone.run(command, **own)
            assert "Traceback" not in done.stderr, done.stderr
            if command.split()[0] in ("up", "run", "deploy", "show", "pin", "snapshot", "restart", "down"):
                assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            clone.check(command)
    finally:
        clone.run("down", **own)
    manifest = next((clone.repository / ".driftline" / "releases" / CASE).glob("*/manifest.json"))
    assert json.loads(manifest.read_text())["sealed"]["dirty"] is False
