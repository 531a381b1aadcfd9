"""`driftline keys`: who may ask the gateway, and how much."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, help="API keys of the gateway. As long as none was made, only this machine may ask."
)

Team = Annotated[str, typer.Option(help="Whose calls these are, in limits and costs.")]
Rpm = Annotated[int | None, typer.Option(min=1, help="Requests a minute. Default: no limit.")]
Tpm = Annotated[int | None, typer.Option(min=1, help="Tokens a minute. Default: no limit.")]
Budget = Annotated[float | None, typer.Option(min=0, help="What may be spent in all. Default: no limit.")]


@app.command()
def create(
    team: Team,
    role: Annotated[list[str] | None, typer.Option(help="predict, feedback, operate, approve or admin.")] = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    budget: Budget = None,
) -> None:
    """Make a key, and show it this once."""
    from flows.terminal import console
    from tasks.ledger.keys import create as make

    with _store() as store:
        id_, secret = make(store, team, role or ["predict", "feedback"], rpm, tpm, budget)
    console.print(f"key {id_} of {team}, shown only now:\n{secret}")


@app.command(name="list")
def show() -> None:
    """All keys, without their secrets."""
    from rich.table import Table

    from flows.terminal import console
    from tasks.ledger.keys import listed

    with _store() as store:
        rows = listed(store)
    table = Table(
        "key", "team", "roles", "rpm", "tpm", "budget", "spent", "reserved", "made", "", box=None, pad_edge=False
    )
    for row in rows:
        made = f"{datetime.fromtimestamp(row['created_at'], UTC):%Y-%m-%d %H:%M}"
        money = ["" if row[name] is None else f"{row[name]:.6g}" for name in ("budget", "spent", "reserved")]
        limits = ["" if row[name] is None else str(row[name]) for name in ("rpm", "tpm")]
        state = "revoked" if row["revoked_at"] else ""
        table.add_row(row["id"], row["team"], ", ".join(row["roles"]), *limits, *money, made, state)
    console.print(table if rows else "No key was made yet: whoever is on this machine may ask, and nobody else.")


@app.command()
def revoke(key: Annotated[str, typer.Argument(help="Its id, as listed.")]) -> None:
    """Let a key open nothing from now on."""
    from flows.terminal import console
    from tasks.ledger.keys import revoke as end

    with _store() as store:
        end(store, key)
    console.print(f"revoked {key}")


@app.command()
def team(
    name: Annotated[str, typer.Argument(help="The team.")], rpm: Rpm = None, tpm: Tpm = None, budget: Budget = None
) -> None:
    """Set what all keys of a team may together; what is not given has no limit."""
    from flows.terminal import console
    from tasks.ledger.keys import limit_team

    with _store() as store:
        limit_team(store, name, rpm, tpm, budget)
    console.print(f"set for {name}")


def _store():
    from contextlib import closing

    from tasks.foundation.settings import settings
    from tasks.ledger.store import Store

    return closing(Store(settings()))
