"""Commands that show the evidence of a decision."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.audit import app as audit
from cli.gates import app as gates
from cli.options import AsJson, CaseName
from cli.signature import app as signature

PANEL = "Evidence"
app = typer.Typer()
app.add_typer(audit, name="audit", rich_help_panel=PANEL)
app.add_typer(gates, name="gates", rich_help_panel=PANEL)
app.add_typer(signature, name="signature", rich_help_panel=PANEL)


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


@app.command(rich_help_panel=PANEL)
def verdict(
    release: Annotated[
        str, typer.Argument(metavar="CASE[:DIGEST]", help="Of a release or of a verdict. Default: the champion.")
    ],
    recompute: Annotated[bool, typer.Option("--recompute", help="Compute it again from the stored scores.")] = False,
    json: AsJson = False,
) -> None:
    """Show a verdict, also of a candidate that was not released. Exit code 1 when a recomputed one differs."""
    from cli.verdict import show_verdict

    show_verdict(release, recompute=recompute, as_json=json)


@app.command(rich_help_panel=PANEL)
def reproduce(
    release: Annotated[str, typer.Argument(metavar="CASE[:DIGEST]", help="Default digest: the champion.")],
    this_code: Annotated[
        bool, typer.Option("--this-code", help="Use the code as it is instead of the commit that was sealed.")
    ] = False,
) -> None:
    """Rebuild a release from its manifest in a clean folder, and compare it. Exit code 1 when a part differs."""
    from cli.reproduce import reproduce as rebuild

    rebuild(release, this_code=this_code)


@app.command(rich_help_panel=PANEL)
def retract(
    case: CaseName,
    row: Annotated[str, typer.Option("--row", metavar="KEY", help="Its key; several columns with commas between.")],
    source: Annotated[str | None, typer.Option(help="The source whose key it is, if several have one.")] = None,
    confirm: Annotated[bool, typer.Option("--confirm", help="Remove it and train again. Default: list it.")] = False,
) -> None:
    """Find a person's row in data, features, models, logs and releases; remove it, train again, record the proof."""
    from cli.retract import retract as retract_row

    retract_row(case, row, source, confirm=confirm)


Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Write it there, and record that. Default: print it.")]


@app.command(rich_help_panel=PANEL)
def card(
    release: Annotated[str, typer.Argument(metavar="CASE[:DIGEST]", help="Default digest: the champion.")],
    form: Annotated[
        Literal["markdown", "html", "croissant", "sbom"],
        typer.Option(
            help="The model card as Markdown in Hugging Face's form or as HTML with plots, the data card in the "
            "vocabulary of Croissant, or the bill of materials of CycloneDX."
        ),
    ] = "markdown",
    out: Out = None,
) -> None:
    """Print a card of a release, from stored evidence alone."""
    from cli.card import write_card

    write_card(release, form, out)


@app.command(rich_help_panel=PANEL)
def report(
    case: CaseName,
    framework: Annotated[
        Literal["eu-ai-act", "nist-ai-rmf", "iso-42001"], typer.Option(help="Whose requirements.")
    ] = "eu-ai-act",
    out: Out = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write HTML, PDF, cards, bill of materials and audit records there, with a script that checks them.",
        ),
    ] = None,
) -> None:
    """Print requirements of a framework with the evidence that exists, and what is missing, as Markdown."""
    from cli.card import write_report

    write_report(case, framework, out, folder)
