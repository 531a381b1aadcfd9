"""Commands that show the evidence of a decision."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.audit import app as audit
from cli.options import AsJson, CaseName

PANEL = "Evidence"
app = typer.Typer()
app.add_typer(audit, name="audit", rich_help_panel=PANEL)


@app.command(rich_help_panel=PANEL)
def why(
    request: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="The x-request-id of an answer.")],
    json: AsJson = False,
) -> None:
    """Show what led to an answer: release, verdict, approval, run, code, data, features, passages and cost."""
    from cli.why import why as explain

    explain(request, json)


@app.command(rich_help_panel=PANEL)
def history(
    case: CaseName,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="A moment, in UTC. Default: every change.")] = None,
    json: AsJson = False,
) -> None:
    """Show what was in production, by whom and why."""
    from cli.why import history as show_history

    show_history(case, at, json)
