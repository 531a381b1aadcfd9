"""A run as the terminal sees it: each step with its seconds and its key figure, alive while it lasts."""

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
    """Run flows.FLOW as of a moment, as `play` does."""
    return run_flow(
        flow, {"case": case, "as_of": as_of, "profile": profile, "by": current_user(), "model": model}, steps
    )


def run_flow(flow: str, request: dict[str, Any], steps: ProgressPrinter | None = None) -> Any:
    """Run flows.FLOW in this process and give its result; on our Prefect server when it is up, else on one of its own.

    Raises: whatever the flow raises; a wrong case before anything is imported.
    """
    case, profile = request["case"], request["profile"]
    load_case(case, settings().cases, profile)
    server = contextlib.nullcontext() if reach_prefect() else ephemeral_server_login()
    told = steps or ProgressPrinter()
    with told, progress_listener(told):
        told.say("starting")
        from prefect import tags

        made = getattr(importlib.import_module(f"flows.{flow}"), flow)
        with server, tags(TAG, case, *([profile] if profile else [])):
            result = made(request)
    console.print(_ending(result))
    return result


class ProgressPrinter:
    """Prints each step as it ends; says what runs meanwhile: a spinner on a terminal, a line now and then elsewhere."""

    def __init__(self, patience: float = 5.0, deepest: int = 9) -> None:
        self.done: list[Step] = []
        self._deepest = deepest  # what lies deeper is said while it runs, and leaves no line
        self._spinner = Status("", console=console)
        self._patience = patience
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
            self.say(step.title)
            return
        self.done.append(step)
        self._running = ""
        if step.depth > self._deepest and not step.failed:
            return
        seconds = f"{step.seconds:5.1f} s"
        mark = styled("failed", "red") if step.failed else styled("cached", "dim") if step.cached else Text(seconds)
        title = f"  {'  ' * step.depth + one_line(step.title):<34} "
        console.print(Text.assemble("  ", " " * (7 - len(mark)), mark, title, styled(one_line(step.figure), "dim")))

    def say(self, text: str) -> None:
        self._running, self._since = text, self._since if text == self._running else time.monotonic()
        self._spinner.update(Text(f"{one_line(text)} ..."))

    def _tick(self) -> None:
        """Say what runs and for how long, ever more rarely as long as it is the same."""
        said, due, wait = "", 0.0, self._patience
        while not self._over.wait(self._patience):
            due = due - self._patience if self._running == said else 0.0
            if self._running and due <= 0:
                wait = min(2 * wait, 60.0) if self._running == said else self._patience
                said, due = self._running, wait
                console.print(f"           {said} ... {time.monotonic() - self._since:.0f} s")


def _ending(result: Any) -> str:
    """A result in a line or a small table."""
    from tasks.backtest.results import BacktestResult
    from tasks.monitor.results import Decision

    given = result
    if isinstance(given, BacktestResult):
        from tasks.backtest.report import lines as table

        return f"{table(given.figures)}\nreport: {given.page}"
    if hasattr(given, "verdict"):
        from tasks.evaluate.report import lines

        return lines(given.verdict)
    if isinstance(given, Decision):
        return f"decision: {given.action}\n" + "\n".join(f"  - {reason}" for reason in given.reasons)
    if getattr(given, "decision", None) is not None:
        return _ending(given.decision) + (f"\n{_ending(given.release)}" if given.release else "")
    if hasattr(given, "bento"):
        return f"release {given.digest[:12]} is champion of {given.case}: driftline show {given.case}"
    if hasattr(given, "folder"):
        return f"predictions: {given.folder}"
    return f"snapshot {given.digest}: {given.path}"
