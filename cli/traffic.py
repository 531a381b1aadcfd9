"""The verbs for who answers, who decides so, and what it costs."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cli.options import AsJson, CaseName

PANEL = "Traffic, people and money"
app = typer.Typer()

Evidence = Annotated[str | None, typer.Option(metavar="DIGEST", help="What you looked at. Default: you are asked.")]
Why = Annotated[str, typer.Option(help="Is kept with it.")]


@app.command(rich_help_panel=PANEL)
def rollout(
    case: CaseName,
    canary: Annotated[str | None, typer.Option(metavar="RELEASE", help="Let it answer --percent of the users.")] = None,
    shadow: Annotated[
        str | None, typer.Option(metavar="RELEASE", help="Ask it too, and only record its answers.")
    ] = None,
    arm: Annotated[str | None, typer.Option(metavar="NAME=RELEASE", help="A named arm of --percent.")] = None,
    percent: Annotated[float, typer.Option(min=0, max=100, help="Share of a canary or an arm.")] = 5.0,
    stop: Annotated[str | None, typer.Option(metavar="RELEASE", help="End its share.")] = None,
) -> None:
    """Which releases answer a case, and what changed when; or give one a share beside the champion."""
    from cli.rollout import share, show

    if canary or shadow or arm or stop:
        share(case, canary, shadow, arm, percent, stop)
    else:
        show(case)


@app.command(rich_help_panel=PANEL)
def promote(
    case: CaseName,
    release: Annotated[str | None, typer.Option(help="Digest, or its beginning. Default: the canary.")] = None,
) -> None:
    """Make a release the champion."""
    from cli.rollout import promote as make_champion

    make_champion(case, release)


@app.command(rich_help_panel=PANEL)
def rollback(
    case: CaseName,
    to: Annotated[str | None, typer.Option(metavar="RELEASE", help="Default: the champion before.")] = None,
) -> None:
    """Let an earlier release answer again, at once."""
    from cli.rollout import rollback as go_back

    go_back(case, to)


@app.command(rich_help_panel=PANEL)
def approve(case: CaseName, evidence: Evidence = None, why: Why = "") -> None:
    """Let a release that waits for a person take over. Not your own run's."""
    from flows.deployed.approval import decide_at_terminal

    decide_at_terminal(case, True, evidence, why)


@app.command(rich_help_panel=PANEL)
def reject(case: CaseName, evidence: Evidence = None, why: Why = "") -> None:
    """Keep a release that waits for a person from taking over."""
    from flows.deployed.approval import decide_at_terminal

    decide_at_terminal(case, False, evidence, why)


@app.command(rich_help_panel=PANEL)
def costs(
    by: Annotated[Literal["team", "case", "release", "day"], typer.Option(help="What to sum by.")] = "case",
    json: AsJson = False,
) -> None:
    """What calls and training have cost, and each answer that was accepted."""
    from cli.costs import print_costs

    print_costs(by, json)
