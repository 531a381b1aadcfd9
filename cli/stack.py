"""The verbs for what runs here."""

from __future__ import annotations

import typer

from cli.backup import backup, restore
from cli.options import AsJson

PANEL = "The stack"
app = typer.Typer()


@app.command(rich_help_panel=PANEL)
def up() -> None:
    """Start the local stack: Prefect and MLflow servers, a worker, the gateway, and the champions."""
    from cli.local import start

    start()


@app.command(rich_help_panel=PANEL)
def down() -> None:
    """Stop the local stack."""
    from cli.local import stop

    stop()


@app.command(rich_help_panel=PANEL)
def restart() -> None:
    """Start everything anew after an upgrade, one after the other: the gateway goes on answering."""
    from cli.local import restart as renew

    renew()


@app.command(rich_help_panel=PANEL)
def status(json: AsJson = False) -> None:
    """What runs, who answers, what was decided, what it costs today, on one screen."""
    from cli.status import print_status

    print_status(json)


@app.command(rich_help_panel=PANEL)
def deploy() -> None:
    """Make every flow of every case a deployment: to start from the UI, on schedule, by decision."""
    from flows.deployed.deploy import deploy as make

    make()


app.command(rich_help_panel=PANEL)(backup)
app.command(rich_help_panel=PANEL)(restore)
