"""`driftline backtest`: compare retraining policies on past months."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

MONTH = ["%Y-%m-%d", "%Y-%m"]


def backtest(
    case: Annotated[str, typer.Argument(metavar="CASE", help="A folder under configs/.")],
    start: Annotated[datetime, typer.Option("--from", formats=MONTH, help="First month, or any day in it.")],
    end: Annotated[datetime, typer.Option("--to", formats=MONTH, help="Last month, or any day in it.")],
    policies: Annotated[str, typer.Option(help="Retraining policies, separated by commas.")] = "never,monthly,decide",
    profile: Annotated[str | None, typer.Option(help="A profile of the case, such as smoke.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the figures to this JSON file.")] = None,
) -> None:
    """Backtest retraining policies on past months, in a sandbox, and compare their results."""
    from cli.terminal import ProgressPrinter, run_flow
    from flows.case import load_case
    from tasks.backtest.policies import check_backtest
    from tasks.core.settings import settings

    named = tuple(name.strip() for name in policies.split(","))
    first, last = start.replace(tzinfo=UTC), end.replace(tzinfo=UTC)
    check_backtest(load_case(case, settings().cases, profile).kind, named, first, last)
    request = {"case": case, "start": first, "end": last, "policies": named, "profile": profile}
    report = run_flow("backtest", request, ProgressPrinter(deepest=1))
    if json:
        json.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(report.json_file, json)
