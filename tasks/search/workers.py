"""Measurements in processes of their own, which can be killed at any moment."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.connection import Pipe
from pathlib import Path
from types import TracebackType
from typing import Any

from tasks.core.errors import Unavailable
from tasks.search.fork_server import error_path
from tasks.search.measurement import measurement_path
from tasks.search.problem import Configuration, Problem

END_SECONDS = 2.0  # for the process that forks to end by itself
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
THREADS["MALLOC_ARENA_MAX"] = "2"


@dataclass(frozen=True)
class Ended:
    """A measurement that ended: its error, empty when its file is there."""

    job: str
    error: str
    memory: int  # bytes at most


class Workers:
    """Starts measurements of one problem."""

    def __init__(self, problem: Problem, folder: Path) -> None:
        self._folder = folder
        self._paths: dict[str, Path] = {}
        self._connection, other = Pipe()
        environment = {**os.environ, **THREADS, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with (folder / "measurements.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tasks.search.fork_server", str(other.fileno())],
                pass_fds=[other.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C goes to the search, which then ends this one
            )
        other.close()
        self._connection.send_bytes(pickle.dumps(problem))

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()  # the process ends its forks, then itself
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait_ready(self, seconds: float) -> bool:
        """Whether the data are loaded within so many seconds. Raises: InputError, as `prepare` does."""
        if not self._connection.poll(None if seconds == float("inf") else max(0.0, seconds)):
            return False
        verb, what = self._receive()
        if verb == "failed":
            raise what
        return True

    def start(self, job: str, configuration: Configuration, rung: int) -> None:
        path = measurement_path(self._folder, configuration, rung)
        error_path(path).unlink(missing_ok=True)
        self._paths[job] = path
        self._connection.send(("measure", job, configuration, rung, path))

    def kill(self, job: str) -> None:
        """`wait` then returns it."""
        self._connection.send(("kill", job))

    def wait(self, seconds: float) -> list[Ended]:
        """What ended, waiting for at most so long."""
        ended: list[Ended] = []
        while self._connection.poll(0.0 if ended else max(0.0, seconds)):
            _, (job, status, kilobytes) = self._receive()
            path = self._paths.pop(job)
            ended.append(Ended(job, _reason(path, status), kilobytes * 1024))
        return ended

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:
            log = self._folder / "measurements.log"
            raise Unavailable(
                "The process that measures has ended.",
                where=str(log),
                found=(log.read_text("utf-8", errors="replace").strip().splitlines() or ["nothing in its log"])[-1],
                todo="Start the search again: it goes on where it was. If memory is short, narrow search.families.",
            ) from error


def _reason(path: Path, status: int) -> str:
    if status == 0 and path.is_file():
        return ""
    if error_path(path).is_file():
        return error_path(path).read_text("utf-8").strip().splitlines()[0][:300]
    return f"killed by signal {-status}" if status < 0 else f"ended with status {status}"
