"""Running commands and reading what they said, as a user at a terminal would."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tasks.core.mlflow import Tracking
from tasks.core.settings import environment, settings
from tasks.release.registry import load_champion
from tasks.release.seal import verify
from tests.conftest import ROOT

LANGUAGE = ("transformers.models.auto.modeling_auto", "peft", "trl.trainer.sft_trainer")
STEP = re.compile(r"^ +(cached|failed|[\d.]+ s)  +(\S.*?)(?:  +(.*))?$", re.MULTILINE)


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    output: str

    @property
    def steps(self) -> dict[str, str]:
        """How each finished step ended, by its title: cached, failed, or its seconds."""
        return {title: how for how, title, _ in STEP.findall(self.output)}

    def figure(self, title: str) -> str:
        """What a step said of its result."""
        return next(figure for _, name, figure in STEP.findall(self.output) if name == title)


@dataclass
class World:
    """A state folder, a data folder and a folder of cases: what one user has."""

    folder: Path
    cases: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def environment(self) -> dict[str, str]:
        places = {"STATE": self.state, "DATA": self.data, "CASES": self.cases}
        return {**{f"DRIFTLINE_{name}": str(path) for name, path in places.items()}, **self.variables}

    def champion(self, case: str) -> str:
        """The digest of a case's champion, whose every byte is what its manifest says."""
        found = load_champion(Tracking.in_folder(self.state), self.state, case)
        assert found is not None
        return verify(found.folder)["digest"]


class Running:
    """A command that was started."""

    def __init__(self, pid: int, output: Path) -> None:
        self.pid, self.output = pid, output

    def text(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def wait(self, timeout: float = 400) -> Done:
        end = Path(f"{self.output}.end")
        deadline = time.monotonic() + timeout
        while not end.exists():
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"not ended in {timeout:.0f} s:\n{self.text()}")
            time.sleep(0.01)
        return Done(int(end.read_text()), self.text())

    def wait_for(self, steps: int, timeout: float = 300) -> bool:
        """Wait until so many steps have ended; False when the command ended before."""
        end = Path(f"{self.output}.end")
        deadline = time.monotonic() + timeout
        while len(STEP.findall(self.text())) < steps:
            if end.exists() or time.monotonic() > deadline:
                return False
            time.sleep(0.003)
        return True

    def kill(self) -> None:
        """kill -9, the process and all that it started in its session."""
        os.killpg(self.pid, signal.SIGKILL)


class Terminal:
    """Runs `driftline` in forks of a warm process."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, count()
        text = environment(settings())
        of_a_state = {name for name, value in text.items() if str(settings().state) in value}
        variables = {name: value for name, value in text.items() if name not in of_a_state}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.end_to_end.warm"],
            cwd=ROOT,
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "warm.log").open("wb"),
            text=True,
        )
        self._ready = False

    def start(self, world: World, *commands: str) -> Running:
        """Start commands, one after the other in one process as long as they end well."""
        output = self._folder / f"{next(self._number)}.txt"
        request = {
            "commands": [command.split() for command in commands],
            "environment": world.environment,
            "output": str(output),
            "imports": LANGUAGE if any("kind: llm" in p.read_text() for p in world.cases.glob("*/case.yaml")) else [],
        }
        if not self._ready:
            self._ready = self._reply() == "ready"
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Running(int(self._reply()), output)

    def run(self, world: World, *commands: str) -> Done:
        return self.start(world, *commands).wait()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(60)

    def _reply(self) -> str:
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError((self._folder / "warm.log").read_text())
        return line


def cold(world: World, command: str, timeout: float = 400) -> Done:
    """Run a command as a user does: a process from nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *command.split()],
        cwd=ROOT,
        env={**os.environ, **world.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Done(done.returncode, done.stdout)
