"""What every benchmark shares: its options, a process of its own for each measurement, a table, figures as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasks.core.lineage import read_lineage
from tasks.core.settings import ROOT

MB = 1024  # kilobytes, as the system counts a process's memory


class Report:
    """Rows of a table and named figures, printed and written together."""

    def __init__(self, title: str, columns: Sequence[str], required: Mapping[str, str] | None = None) -> None:
        """`required` says of a figure what it must reach, for the reader."""
        self.title, self.columns, self.required = title, list(columns), required or {}
        self.rows: list[list[str]] = []
        self.figures: dict[str, float] = {}
        self.notes: list[str] = []

    def row(self, *cells: object) -> None:
        """Add a row, and show it at once: a benchmark may take minutes."""
        self.rows.append([shown(cell) for cell in cells])
        print("  " + "  ".join(self.rows[-1]), flush=True)

    def figure(self, name: str, value: float) -> None:
        """Add a figure under the name that others look it up by."""
        self.figures[name] = round(value, 4)
        wanted = f" (required: {self.required[name]})" if name in self.required else ""
        self.notes.append(f"{name} = {shown(value)}{wanted}")
        print(f"  {self.notes[-1]}", flush=True)

    def finish(self, packages: Iterable[str], path: Path | None) -> None:
        """Print the table as Markdown with figures, versions and the commit; write the figures to `path`."""
        code = read_lineage(ROOT)
        commit = f"commit {code.commit[:12]}{' with changes' if code.dirty else ''}"
        machine = f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, Python {platform.python_version()}"
        environment = ", ".join([commit, machine, *(f"{package} {version(package)}" for package in packages)])
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        print(f"\n### {self.title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
        print("\n".join(f"- {note}" for note in self.notes) + f"\n\n{environment}", flush=True)
        if path:
            content: dict[str, Any] = {"commit": code.commit, "dirty": code.dirty}
            content |= {"figures": self.figures, "columns": self.columns, "rows": self.rows, "versions": environment}
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def arguments(description: str, **more: str) -> argparse.Namespace:
    """The options of every benchmark: quick, json; and `one`, by which it calls itself in a process of its own.

    `more` are names of options that take a text, with their help.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small sizes, about a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    for name, meaning in more.items():
        parser.add_argument(f"--{name.replace('_', '-')}", help=meaning)
    return parser.parse_args()


def in_own_process(module: str, **parameters: Any) -> dict[str, Any]:
    """Run `python -m MODULE --one PARAMETERS` and return the JSON that its last line prints.

    Raises: RuntimeError with the end of its output when it fails.
    """
    call = [sys.executable, "-m", module, "--one", json.dumps(parameters)]
    with tempfile.TemporaryFile("w+") as errors:
        done = subprocess.run(call, stdout=subprocess.PIPE, stderr=errors, text=True)
        errors.seek(0)
        if done.returncode:
            raise RuntimeError(f"{' '.join(call)} ended with {done.returncode}:\n{errors.read()[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def timed(work: Callable[[], Any], times: int) -> tuple[list[float], Any]:
    """Seconds of each of several runs, and the last one's result."""
    seconds, result = [], None
    for _ in range(times):
        result = None  # free the last one, so that it does not count into the peak of the next
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return seconds, result


def peak_memory() -> int:
    """The most memory that this process has held so far, in MB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // MB


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def shown(value: object) -> str:
    """A number with three significant digits, or what else it is as text."""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
