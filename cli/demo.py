"""`driftline demo`: the whole pipeline on a case's real data, then month by month until it retrains."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from cli.local import addresses, start
from cli.show import show_release
from cli.terminal import ProgressPrinter, run_flow_with_progress
from flows.case import LanguageCase, TabularCase, load_case
from flows.run_context import resolve_as_of
from tasks.backtest.policies import next_month
from tasks.core.console import PlainTable, console, styled
from tasks.core.errors import GateFailed
from tasks.core.progress import Step
from tasks.core.settings import settings

NEXT: dict[str, Callable[[str], dict[str, str]]] = {
    "tabular": lambda case: {f"driftline monitor {case} --as-of DATE": "any other month"},
    "llm": lambda case: {f"driftline chat {case} --compare base": "chat with it, beside the untuned base model"},
    "documents": lambda case: {f'driftline ask {case} "QUESTION"': "an answer from the documents, with links"},
}


def demo(case: str, months: int, profile: str | None = None) -> None:
    """Start the stack, release a champion and monitor it at each month's end until it is retrained."""
    started = time.monotonic()
    outcomes: list[tuple[str, list[Step], str]] = []

    def play(title: str, flow: str, as_of: datetime) -> object:
        console.print(styled(f"\n{title}", "bold"))
        steps = ProgressPrinter()
        try:
            result = run_flow_with_progress(flow, case, as_of, profile, steps)
        except GateFailed as failed:
            console.print(str(failed))
            outcomes.append((title, steps.done, "the challenger was not promoted, the champion stays"))
            return None
        outcomes.append((title, steps.done, _outcome(result)))
        return result

    console.print(styled("local stack", "bold"))
    start()
    loaded = load_case(case, settings().cases)
    as_of = resolve_as_of(loaded.as_of)
    released = play(f"data to release, as of {as_of:%Y-%m-%d}", "release", as_of)
    for _ in range(months if isinstance(loaded, TabularCase) else 0):
        as_of = next_month(as_of)
        result = play(f"monitor, as of {as_of:%Y-%m-%d}", "retrain", as_of)
        if result is None or getattr(result, "release", None):
            break
    _summary(case, outcomes, time.monotonic() - started)
    if isinstance(loaded, LanguageCase) and released:
        show_release(case, None, False)


def _outcome(result: object) -> str:
    from flows.retrain import RetrainResult

    if isinstance(result, RetrainResult):
        action = f"decision: {result.decision.action}"
        return f"{action}; promoted release {result.release.digest[:12]}" if result.release else action
    return f"promoted release {result.digest[:12]}"  # type: ignore[attr-defined]


def _summary(case: str, outcomes: list[tuple[str, list[Step], str]], seconds: float) -> None:
    table = PlainTable("step", "seconds", "result", title="What happened")
    for title, steps, outcome in outcomes:
        whole = [step for step in steps if not step.depth]
        seconds_of_all = f"{sum(step.seconds or 0 for step in whole):.1f}"
        table.add_row(styled(title, "bold"), seconds_of_all, styled(outcome, "bold"))
        for step in [step for step in whole if not step.cached]:
            table.add_row(f"  {step.title}", f"{step.seconds or 0:.1f}", step.figure)
    console.print()
    console.print(table)
    console.print(f"\n{seconds:.0f} s in total. Running now:")
    running = addresses()
    wide = max((len(name) for name, _ in running), default=0)
    for name, address in running:
        console.print(f"  {name:<{wide}}  {address}")
    loaded = load_case(case, settings().cases)
    next_commands = {
        f"driftline show {case}": "the champion's manifest, metrics and verdict",
        **NEXT["documents" if loaded.kind == "llm" and loaded.knowledge else loaded.kind](case),
        "driftline down": "stop everything",
    }
    console.print("\nNext:\n" + "\n".join(f"  {command:<38} {why}" for command, why in next_commands.items()))
