"""Runs a flow and prints its progress: each step with its seconds and its key figure."""

from __future__ import annotations

import contextlib
import importlib
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.status import Status
from rich.text import Text

from flows.case import load_case
from services.runtime.prefect_api import TAG, ephemeral_server_login, reach_prefect
from tasks.core.console import console, styled
from tasks.core.display import one_line
from tasks.core.processes import current_user
from tasks.core.progress import Step, progress_listener
from tasks.core.settings import settings


def run_flow_with_progress(
    flow: str,
    case: str,
    as_of: datetime | None,
    profile: str | None,
    steps: ProgressPrinter | None = None,
    model: Path | None = None,
) -> Any:
    """Run flows.FLOW for a case as of a moment."""
    return run_flow(
        flow, {"case": case, "as_of": as_of, "profile": profile, "by": current_user(), "model": model}, steps
    )


def run_flow(flow: str, request: dict[str, Any], steps: ProgressPrinter | None = None) -> Any:
    """Run flows.FLOW in this process, on the local Prefect server when it is up, else on a temporary one.

    Raises: whatever the flow raises; CaseError before anything heavy is imported.
    """
    case, profile = request["case"], request["profile"]
    load_case(case, settings().cases, profile)
    server = contextlib.nullcontext() if reach_prefect() else ephemeral_server_login()
    printer = steps or ProgressPrinter()
    with printer, progress_listener(printer):
        printer.announce("starting")
        from prefect import tags

        flow_function = getattr(importlib.import_module(f"flows.{flow}"), flow)
        with server, tags(TAG, case, *([profile] if profile else [])):
            result = flow_function(request)
    console.print(_summary(result))
    return result


class ProgressPrinter:
    """Prints each finished step, and the running one: as a spinner on a terminal, else as occasional lines."""

    def __init__(self, interval: float = 5.0, deepest: int = 9) -> None:
        self.done: list[Step] = []
        self._deepest = deepest  # deeper steps show in the spinner only
        self._spinner = Status("", console=console)
        self._interval = interval
        self._running, self._since = "", 0.0
        self._over = threading.Event()

    def __enter__(self) -> ProgressPrinter:
        if console.is_terminal:
            self._spinner.start()
        else:
            threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._spinner.stop()

    def __call__(self, step: Step) -> None:
        if step.seconds is None:
            self.announce(step.title)
            return
        self.done.append(step)
        self._running = ""
        if step.depth > self._deepest and not step.failed:
            return
        seconds = f"{step.seconds:5.1f} s"
        mark = styled("failed", "red") if step.failed else styled("cached", "dim") if step.cached else Text(seconds)
        title = f"  {'  ' * step.depth + one_line(step.title):<34} "
        console.print(Text.assemble("  ", " " * (7 - len(mark)), mark, title, styled(one_line(step.figure), "dim")))

    def announce(self, text: str) -> None:
        self._running, self._since = text, self._since if text == self._running else time.monotonic()
        self._spinner.update(Text(f"{one_line(text)} ..."))

    def _tick(self) -> None:
        """Print the running step and its seconds, less and less often while it stays the same."""
        printed, due, wait = "", 0.0, self._interval
        while not self._over.wait(self._interval):
            due = due - self._interval if self._running == printed else 0.0
            if self._running and due <= 0:
                wait = min(2 * wait, 60.0) if self._running == printed else self._interval
                printed, due = self._running, wait
                console.print(f"           {printed} ... {time.monotonic() - self._since:.0f} s")


def _summary(result: Any) -> str:
    """A result as one line or a small table."""
    from tasks.backtest.results import BacktestResult
    from tasks.monitor.results import Decision

    if isinstance(result, BacktestResult):
        from tasks.backtest.report import lines as table

        return f"{table(result.figures)}\nreport: {result.page}"
    if hasattr(result, "verdict"):
        from tasks.evaluate.report import lines

        return lines(result.verdict)
    if isinstance(result, Decision):
        reasons = "\n".join(f"  - {reason}" for reason in result.reasons)
        return f"decision: {result.action}\n{reasons}\nreport: {result.report}"
    if getattr(result, "decision", None) is not None:
        return _summary(result.decision) + (f"\n{_summary(result.release)}" if result.release else "")
    if hasattr(result, "rebuilt"):
        return f"rebuilt {result.rebuilt[:12]}"
    if hasattr(result, "bento"):
        return f"release {result.digest[:12]} is champion of {result.case}: driftline show {result.case}"
    if hasattr(result, "folder"):
        return f"predictions: {result.folder}"
    return f"snapshot {result.digest}: {result.path}"
