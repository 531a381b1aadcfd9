"""`driftline search`: look for a better configuration within a budget, and write it into case.yaml."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from cli.options import AsJson, CaseName

if TYPE_CHECKING:
    from tasks.search.budget import Clock
    from tasks.search.config import Limit
    from tasks.search.results import SearchResult
    from tasks.search.search import Progress

START = "start"
INTERVAL = 10.0  # seconds between two lines of progress, unless the best changes


class SearchVerbs(TyperGroup):
    """`search CASE` means `search start CASE`."""

    default = START

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = [self.default, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=SearchVerbs,
    no_args_is_help=True,
    help="Search a better model, prompt or retrieval for a case within a budget: `driftline search CASE --budget 15m`.",
)


@app.command(name=START)
def start(
    case: CaseName,
    budget: Annotated[
        str | None, typer.Option(help="Such as 90s, 15m, 2000-calls or 0.20$; it counts from the search's beginning.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Profile of the case, for example smoke.")] = None,
    json: AsJson = False,
) -> None:
    """Search (`start` may be left out). Started again, it goes on where it was; the hold-out is never read."""
    run_search(case, budget, profile, json)


@app.command()
def show(case: CaseName, json: AsJson = False) -> None:
    """Show the newest search of a case."""
    result = find_result(case)
    if json:
        print(result.model_dump_json(indent=2))
        return
    print_result(result)


@app.command()
def adopt(
    case: CaseName,
    trial: Annotated[int | None, typer.Argument(metavar="[TRIAL]", help="Its number. Default: the chosen one.")] = None,
) -> None:
    """Write a trial's configuration into case.yaml, as a change to review and to run."""
    from flows.search import adopted, difference
    from tasks.core.console import console
    from tasks.core.errors import InputError
    from tasks.core.files import write_text
    from tasks.core.settings import settings

    result, path = find_result(case), case_file(settings().cases, case)
    numbers = [each.number for each in result.trials if each.state == "complete"]
    number = result.chosen if trial is None else trial
    if number not in numbers:
        raise InputError(
            f"Trial {number} was not measured to its end.",
            where=f"the newest search of {case}",
            found=str(number),
            allowed=", ".join(map(str, numbers)),
            todo=f"driftline search show {case}",
        )
    before = path.read_text("utf-8")
    after = adopted(result, number, before)
    if after == before:
        console.print(f"{path} has this configuration already.")
        return
    write_text(path, after)
    console.print(difference(result, number, before))
    console.print(f"The gates judge it on the hold-out, which the search never read:\n  driftline run {case}")


def run_search(name: str, budget: str | None, profile: str | None, as_json: bool) -> None:
    """Search, and print progress and result.

    Raises: InputError for a budget that can't be read or is too small, and what keeps a case from being searched.
    """
    from tasks.core.settings import settings
    from tasks.search.budget import start_clock
    from tasks.search.config import Limit
    from tasks.search.search import FOLDER

    if not case_file(settings().cases, name).is_file():
        return _search(name, budget, profile, as_json, None)
    clock = start_clock(settings().state / FOLDER / name)  # before the imports, which take seconds
    try:
        if budget:
            _watch(clock, Limit.parse(budget))
        return _search(name, budget, profile, as_json, clock)
    finally:
        clock.close(0.0)  # of a search that was refused, nothing is left to pay


def _search(name: str, budget: str | None, profile: str | None, as_json: bool, preparing: Clock | None) -> None:
    from cli.terminal import ProgressPrinter
    from flows.case import load_case
    from flows.run_context import Request, run_context
    from flows.search import search_case
    from tasks.core.errors import InputError
    from tasks.core.progress import progress_listener
    from tasks.core.settings import settings
    from tasks.search.config import ALLOWED, Limit

    case = load_case(name, settings().cases, profile)
    if preparing and not budget and case.search.budget:
        _watch(preparing, Limit.parse(case.search.budget))
    budget = budget or case.search.budget
    if budget is None:
        raise InputError(
            "A search needs a budget.",
            where="--budget, or search.budget of the case",
            allowed=ALLOWED,
            todo=f"driftline search {name} --budget 15m",
        )
    Limit.parse(budget)
    with run_context(Request(case=name, profile=profile)) as run, ExitStack() as stack:
        printer = ProgressLines(as_json)
        if not as_json:
            stack.enter_context(progress_listener(stack.enter_context(ProgressPrinter())))
        result = search_case(run, budget, printer, preparing=preparing)
    if as_json:
        print(json.dumps(result.model_dump(mode="json"), indent=2))
        return
    print_result(result)


def _watch(clock: Clock, limit: Limit) -> None:
    """Let the process end when its whole budget of time goes into preparing."""
    if limit.seconds is not None:
        timer = threading.Timer(max(0.0, limit.seconds - clock.seconds), _end_preparing, (clock, limit))
        timer.daemon = True
        timer.start()


def _end_preparing(clock: Clock, limit: Limit) -> None:
    """End the process, as a kill would, unless the search has begun, which keeps its budget itself."""
    from tasks.core.errors import InputError

    if clock.is_open:
        error = InputError(
            "The budget is too small for one trial.",
            where="--budget",
            found=f"{limit.text}, all of which went into preparing the data",
            todo="Name a larger budget, such as 15m. What was prepared stays.",
        )
        clock.close(0.0)
        print(f"\n{error}", file=sys.stderr, flush=True)
        os._exit(error.exit_code)


class ProgressLines:
    """A line when the best changes, and otherwise every ten seconds."""

    def __init__(self, silent: bool) -> None:
        self._silent = silent
        self._best: int | None = None
        self._printed = 0.0

    def __call__(self, progress: Progress) -> None:
        from tasks.core.console import console
        from tasks.search.results import shown_value

        best, now = progress.best, time.monotonic()
        is_new = best is not None and best.number != self._best
        if self._silent or best is None or not (is_new or now - self._printed > INTERVAL):
            return
        self._best, self._printed = best.number, now
        limit = progress.limit.text
        value = shown_value(progress.metric, best.loss)
        mark = f"{'new best' if is_new else 'best so far'} {progress.metric} {value}"
        console.print(
            f"  {progress.spent.seconds:6.0f} s of {limit}  {progress.trials:4d} trials  {mark}"
            f"  trial {best.number}: {best.label}"
        )


def case_file(cases: Path, case: str) -> Path:
    return cases / case / "case.yaml"


def find_result(case: str) -> SearchResult:
    """The newest result. Raises: InputError when there is none."""
    from tasks.core.errors import InputError
    from tasks.core.settings import settings
    from tasks.search.results import latest_result
    from tasks.search.search import FOLDER

    result = latest_result(settings().state / FOLDER / case)
    if result is None:
        raise InputError(
            f"No search of {case} has ended yet.",
            where="driftline search",
            todo=f"driftline search {case} --budget 15m",
        )
    return result


def print_result(result: SearchResult) -> None:
    """The findings, and what to do next."""
    from tasks.core.console import console

    print_findings(result)
    if result.chosen:
        console.print(f"To adopt it: driftline search adopt {result.case} {result.chosen}")


def print_findings(result: SearchResult) -> None:
    """The front, what each arm brings, and what was spent."""
    from tasks.core.console import PlainTable, console
    from tasks.search.language.arm import LAYERS
    from tasks.search.language.ladder import LADDER_HEAD, cheapest_line, ladder_rows
    from tasks.search.report import FRONT_HEAD, front_rows, summary

    head = [result.metric if name == "metric" else name for name in FRONT_HEAD]
    rows = front_rows(result)
    shown = [k for k in range(len(head)) if k == len(head) - 1 or any(row[k] for row in rows)]
    table = PlainTable(*(head[k] for k in shown))
    for row in rows:
        table.add_row(*(row[k] for k in shown))
    console.print(table)
    if result.best.arm in LAYERS:
        arms = PlainTable(*(result.metric if name == "metric" else name for name in LADDER_HEAD))
        for each in ladder_rows(result):
            arms.add_row(*each)
        console.print(arms)
    for line in summary(result):
        console.print(line)
    if result.best.arm in LAYERS:
        console.print(cheapest_line(result))
    console.print(f"report: {result.folder / 'report.html'}")
