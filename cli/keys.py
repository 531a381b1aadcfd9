"""`driftline keys`: who may ask the gateway, and how much."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, help="API keys of the gateway. As long as none was made, only you may ask, from this machine."
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
    owner: Annotated[str | None, typer.Option(help="Whose key it is: approvals count as theirs. Default: you.")] = None,
) -> None:
    """Make a key, and show it this once."""
    from services.store.keys import MAX_OWNER, check_name, set_key_owner
    from services.store.keys import create_key as make
    from tasks.core.console import console
    from tasks.core.display import one_line

    if owner is not None:
        check_name(owner, "--owner", MAX_OWNER)
    with _store() as store:
        id_, secret = make(store, team, role or ["predict", "feedback"], rpm, tpm, budget)
        if owner is not None:
            set_key_owner(store, id_, owner)
    console.print(f"key {id_} of {one_line(team)}, shown only now:\n{secret}")


@app.command(name="list")
def show() -> None:
    """All keys, without their secrets."""
    from services.store.keys import list_keys
    from tasks.core.console import PlainTable, console

    with _store() as store:
        rows = list_keys(store)
    columns = ("key", "team", "owner", "roles", "rpm", "tpm", "budget", "spent", "reserved", "made", "made by", "")
    table = PlainTable(*columns)
    for row in rows:
        made = f"{datetime.fromtimestamp(row['created_at'], UTC):%Y-%m-%d %H:%M}"
        money = ["" if row[name] is None else f"{row[name]:.6g}" for name in ("budget", "spent", "reserved")]
        limits = ["" if row[name] is None else str(row[name]) for name in ("rpm", "tpm")]
        state = "revoked" if row["revoked_at"] else ""
        names, maker = (row["id"], row["team"], row["owner"], ", ".join(row["roles"])), row["created_by"]
        table.add_row(*names, *limits, *money, made, maker, state)
    console.print(table if rows else "No key was made yet: only you may ask, from this machine.")


@app.command()
def revoke(key: Annotated[str, typer.Argument(help="Its id, as listed.")]) -> None:
    """Let a key open nothing from now on."""
    from services.store.keys import revoke_key as end
    from tasks.core.console import console
    from tasks.core.display import one_line

    with _store() as store:
        end(store, key)
    console.print(f"revoked {one_line(key)}")


@app.command()
def owner(
    key: Annotated[str, typer.Argument(help="Its id, as listed.")],
    name: Annotated[str, typer.Argument(help="The person as whose word its approvals count.")],
) -> None:
    """Say whose key it is; one of nobody known can't approve."""
    from services.store.keys import set_key_owner
    from tasks.core.console import console
    from tasks.core.display import one_line

    with _store() as store:
        set_key_owner(store, key, name)
    console.print(f"{one_line(key)} is a key of {one_line(name)}")


@app.command()
def team(
    name: Annotated[str, typer.Argument(help="The team.")], rpm: Rpm = None, tpm: Tpm = None, budget: Budget = None
) -> None:
    """Set what all keys of a team may together; what is not given has no limit."""
    from services.store.keys import set_team_limits
    from tasks.core.console import console
    from tasks.core.display import one_line

    with _store() as store:
        set_team_limits(store, name, rpm, tpm, budget)
    console.print(f"set for {one_line(name)}")


def _store():
    from contextlib import closing

    from services.store.database import Store
    from tasks.core.settings import settings

    return closing(Store(settings()))
