"""`driftline keys`: API keys of the gateway, with roles, rate limits and budgets."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from contextlib import closing

    from services.store.database import Store

app = typer.Typer(
    no_args_is_help=True,
    help="Manage the gateway's API keys. Without keys, only you can call it, from this machine.",
)

Team = Annotated[str, typer.Option(help="Team that shares limits and costs.")]
Rpm = Annotated[int | None, typer.Option(min=1, help="Requests per minute. Default: no limit.")]
Tpm = Annotated[int | None, typer.Option(min=1, help="Tokens per minute. Default: no limit.")]
Budget = Annotated[float | None, typer.Option(min=0, help="Total budget. Default: no limit.")]


@app.command()
def create(
    team: Team,
    role: Annotated[
        list[str] | None, typer.Option(help="predict, feedback, operate, approve, admin; repeatable.")
    ] = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    budget: Budget = None,
    owner: Annotated[str | None, typer.Option(help="Person whose approvals this key gives. Default: you.")] = None,
    labels: Annotated[str, typer.Option(help="Labels, such as a,b: it sees passages with one of them.")] = "",
) -> None:
    """Create a key and show its secret once."""
    from services.store.keys import MAX_OWNER, check_labels, check_name, create_key, set_key_labels, set_key_owner
    from tasks.core.console import console
    from tasks.core.display import one_line

    if owner is not None:
        check_name(owner, "--owner", MAX_OWNER)
    check_labels(chosen := _split(labels))
    with _store() as store:
        id_, secret = create_key(store, team, role or ["predict", "feedback"], rpm, tpm, budget)
        if owner is not None:
            set_key_owner(store, id_, owner)
        if chosen:
            set_key_labels(store, id_, chosen)
    console.print(f"key {id_} of {one_line(team)}, shown only now:\n{secret}")


@app.command(name="list")
def show() -> None:
    """List all keys without their secrets."""
    from services.store.keys import list_keys
    from tasks.core.console import PlainTable, console

    with _store() as store:
        rows = list_keys(store)
    columns = (
        "key",
        "team",
        "owner",
        "roles",
        "labels",
        "rpm",
        "tpm",
        "budget",
        "spent",
        "reserved",
        "created",
        "created by",
        "",
    )
    table = PlainTable(*columns)
    for row in rows:
        created = f"{datetime.fromtimestamp(row['created_at'], UTC):%Y-%m-%d %H:%M}"
        money = ["" if row[name] is None else f"{row[name]:.6g}" for name in ("budget", "spent", "reserved")]
        limits = ["" if row[name] is None else str(row[name]) for name in ("rpm", "tpm")]
        state = "revoked" if row["revoked_at"] else ""
        names = (row["id"], row["team"], row["owner"], *(", ".join(row[name]) for name in ("roles", "labels")))
        creator = row["created_by"]
        table.add_row(*names, *limits, *money, created, creator, state)
    console.print(table if rows else "There are no keys yet: only you can call the gateway, from this machine.")


@app.command()
def revoke(key: Annotated[str, typer.Argument(help="Id of the key, as listed.")]) -> None:
    """Revoke a key at once."""
    from services.store.keys import revoke_key
    from tasks.core.console import console
    from tasks.core.display import one_line

    with _store() as store:
        revoke_key(store, key)
    console.print(f"revoked {one_line(key)}")


@app.command()
def owner(
    key: Annotated[str, typer.Argument(help="Id of the key, as listed.")],
    name: Annotated[str, typer.Argument(help="Person whose approvals this key gives.")],
) -> None:
    """Set the owner of a key; a key without an owner can't approve."""
    from services.store.keys import set_key_owner
    from tasks.core.console import console
    from tasks.core.display import one_line

    with _store() as store:
        set_key_owner(store, key, name)
    console.print(f"{one_line(key)} now belongs to {one_line(name)}")


@app.command()
def labels(
    key: Annotated[str, typer.Argument(help="Id of the key, as listed.")],
    names: Annotated[str, typer.Argument(help='Labels, such as a,b; "": none.')],
) -> None:
    """Set the labels of a key: of a knowledge base it sees passages without labels, and those with one of these."""
    from services.store.keys import set_key_labels
    from tasks.core.console import console
    from tasks.core.display import one_line

    with _store() as store:
        set_key_labels(store, key, _split(names))
    console.print(f"labels set for {one_line(key)}")


@app.command()
def team(
    name: Annotated[str, typer.Argument(help="The team.")], rpm: Rpm = None, tpm: Tpm = None, budget: Budget = None
) -> None:
    """Set the limits that all keys of a team share; an omitted option means no limit."""
    from services.store.keys import set_team_limits
    from tasks.core.console import console
    from tasks.core.display import one_line

    with _store() as store:
        set_team_limits(store, name, rpm, tpm, budget)
    console.print(f"limits set for team {one_line(name)}")


def _split(labels: str) -> list[str]:
    return [label.strip() for label in labels.split(",") if label.strip()]


def _store() -> closing[Store]:
    from contextlib import closing

    from services.store.database import Store
    from tasks.core.settings import settings

    return closing(Store(settings()))
