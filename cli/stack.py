"""Commands for the local stack."""

from __future__ import annotations

import typer

from cli.backup import backup, restore
from cli.options import AsJson

PANEL = "The stack"
app = typer.Typer()


@app.command(rich_help_panel=PANEL)
def up() -> None:
    """Start the local stack: Prefect, MLflow, a worker, the gateway and each case's champion."""
    from cli.local import start

    start()


@app.command(rich_help_panel=PANEL)
def down() -> None:
    """Stop the local stack."""
    from cli.local import stop

    stop()


@app.command(rich_help_panel=PANEL)
def restart() -> None:
    """Restart all processes one by one, for example after an upgrade; the gateway keeps answering."""
    from cli.local import restart as restart_stack

    restart_stack()


@app.command(rich_help_panel=PANEL)
def status(json: AsJson = False) -> None:
    """Show services, champions, traffic, decisions, runs and today's costs on one screen."""
    from cli.status import print_status

    print_status(json)


@app.command(rich_help_panel=PANEL)
def doctor(json: AsJson = False) -> None:
    """Check this installation and print how to fix each problem. Exit code 1 when there is one."""
    from cli.doctor import diagnose, print_checks
    from tasks.core.settings import settings

    if print_checks(diagnose(settings()), json):
        raise typer.Exit(1)


@app.command(rich_help_panel=PANEL)
def deploy() -> None:
    """Create a Prefect deployment of every flow of every case, for the UI, schedules, decisions and pushes."""
    from flows.deployed.deploy import deploy as create_deployments

    create_deployments()


app.command(rich_help_panel=PANEL)(backup)
app.command(rich_help_panel=PANEL)(restore)
