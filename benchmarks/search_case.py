"""A workplace for searches: a state folder and a folder of cases of their own, used by the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.settings import ROOT, settings

if TYPE_CHECKING:
    from tasks.train.results import Candidate


class Workplace:
    """State and cases in one folder. Entering it points this process, and what it starts, to them."""

    def __init__(self, folder: Path, *cases: str) -> None:
        """`cases` are copied from those of the platform."""
        self.folder, self.cases = folder, folder / "cases"
        self.cases.mkdir(parents=True, exist_ok=True)
        for name in (*cases, "platform.yaml"):
            source, copy = ROOT / "configs" / name, self.cases / name
            if source.is_dir():
                shutil.copytree(source, copy, dirs_exist_ok=True)
            elif source.is_file():
                shutil.copyfile(source, copy)
        self._before: dict[str, str | None] = {}

    def __enter__(self) -> Workplace:
        own = {"STATE": self.folder / "state", "DATA": self.folder / "data", "CASES": self.cases}
        self._before = {f"DRIFTLINE_{name}": os.environ.get(f"DRIFTLINE_{name}") for name in own}
        os.environ.update({f"DRIFTLINE_{name}": str(path) for name, path in own.items()})
        settings.cache_clear()
        return self

    def __exit__(self, *_: object) -> None:
        for name, value in self._before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        settings.cache_clear()

    def search(self, case: str, budget: str, *options: str) -> dict[str, Any]:
        """The result of `driftline search`, with the seconds that the process took as `wall`."""
        start = time.perf_counter()
        result: dict[str, Any] = json.loads(self.run("search", case, "--budget", budget, "--json", *options))
        return result | {"wall": time.perf_counter() - start}

    def run(self, *words: str) -> str:
        """The output of a `driftline` command. Raises: RuntimeError when it fails."""
        done = subprocess.run([sys.executable, "-m", "cli.main", *words], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"driftline {' '.join(words)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
        return done.stdout


def trained(case: str, as_of: datetime | None = None) -> Candidate:
    """The candidate of a case as its case.yaml is now, in this process's state folder."""
    from flows.case import TabularCase
    from flows.run_context import Request, run_context
    from flows.steps import prepare_snapshot
    from tasks.features.task import training_frame
    from tasks.train.task import train_candidate

    with run_context(Request(case=case, as_of=as_of)) as run:
        assert isinstance(run.case, TabularCase)
        frame = training_frame(run.case.frame_spec, prepare_snapshot(run), run.settings.state)
        return train_candidate(run.origin, frame, run.case.target, run.case.train)
