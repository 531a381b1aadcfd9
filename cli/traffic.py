"""Commands for traffic, approvals and costs."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cli.options import AsJson, CaseName

PANEL = "Traffic, approvals and costs"
app = typer.Typer()

Evidence = Annotated[
    str | None, typer.Option(metavar="DIGEST", help="Digest of the reviewed evidence. Default: show it and ask.")
]
Why = Annotated[str, typer.Option(help="Reason, stored with the decision.")]


@app.command(rich_help_panel=PANEL)
def rollout(
    case: CaseName,
    canary: Annotated[
        str | None, typer.Option(metavar="RELEASE", help="Route --percent of users to this release.")
    ] = None,
    shadow: Annotated[
        str | None,
        typer.Option(metavar="RELEASE", help="Copy each request to this release; only log its responses."),
    ] = None,
    arm: Annotated[str | None, typer.Option(metavar="NAME=RELEASE", help="Add an A/B arm of --percent.")] = None,
    percent: Annotated[float, typer.Option(min=0, max=100, help="Share of the canary or arm.")] = 5.0,
    stop: Annotated[str | None, typer.Option(metavar="RELEASE", help="Stop routing traffic to this release.")] = None,
) -> None:
    """Show the traffic split of a case and its history, or change the share of a release."""
    from cli.rollout import share, show

    if canary or shadow or arm or stop:
        share(case, canary, shadow, arm, percent, stop)
    else:
        show(case)


@app.command(rich_help_panel=PANEL)
def promote(
    case: CaseName,
    release: Annotated[str | None, typer.Option(help="Digest or a prefix of it. Default: the canary.")] = None,
) -> None:
    """Promote a release to champion."""
    from cli.rollout import promote as promote_release

    promote_release(case, release)


@app.command(rich_help_panel=PANEL)
def rollback(
    case: CaseName,
    to: Annotated[
        str | None, typer.Option(metavar="RELEASE", help="Digest or prefix. Default: the previous champion.")
    ] = None,
) -> None:
    """Roll traffic back to an earlier release at once."""
    from cli.rollout import rollback as roll_back

    roll_back(case, to)


@app.command(rich_help_panel=PANEL)
def approve(case: CaseName, evidence: Evidence = None, why: Why = "") -> None:
    """Approve a pending release. You can't approve a run that you started."""
    from flows.deployed.approval import decide_at_terminal

    decide_at_terminal(case, True, evidence, why)


@app.command(rich_help_panel=PANEL)
def reject(case: CaseName, evidence: Evidence = None, why: Why = "") -> None:
    """Reject a pending release."""
    from flows.deployed.approval import decide_at_terminal

    decide_at_terminal(case, False, evidence, why)


@app.command(rich_help_panel=PANEL)
def costs(
    by: Annotated[Literal["team", "case", "release", "day"], typer.Option(help="Group by.")] = "case",
    json: AsJson = False,
) -> None:
    """Show the costs of calls and training, and the cost per accepted answer."""
    from cli.costs import print_costs

    print_costs(by, json)
