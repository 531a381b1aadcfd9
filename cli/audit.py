"""`driftline audit`: the records of all decisions, their verification, and anchors outside the database."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from cli.options import AsJson
from tasks.core.errors import DriftlineError

ANCHOR = "audit.anchor"
FIRST = ("reason", "decision", "changed", "flow")  # details that say most
app = typer.Typer(no_args_is_help=True, help="Show and verify the chain of audit records: who decided what, and when.")


@app.command("list")
def list_events(
    case: Annotated[str | None, typer.Option(help="Only this case.")] = None,
    since: Annotated[str | None, typer.Option(metavar="DATE", help="Only from this moment on, in UTC.")] = None,
    count: Annotated[int, typer.Option(min=1, max=1_000_000, help="The latest records.")] = 30,
    json: AsJson = False,
) -> None:
    """Show the latest decisions, the newest last."""
    from cli.main import parse_as_of
    from services.store.audit import latest_audit_events
    from services.store.database import Store
    from tasks.core.console import PlainTable, console
    from tasks.core.display import one_line
    from tasks.core.settings import settings

    with closing(Store(settings())) as store:
        events = latest_audit_events(store, count, case, parse_as_of(since))
    if json:
        print("[" + ",\n".join(event.model_dump_json() for event in events) + "]")
        return
    table = PlainTable("", "at (UTC)", "by", "action", "case", "subject", "details")
    for event in events:
        named = sorted(event.details.items(), key=lambda each: each[0] not in FIRST)
        details = ", ".join(f"{name} {value}" for name, value in named if value and name != "sections")
        row = (f"{event.at:%Y-%m-%d %H:%M:%S}", event.by, event.action, event.case, event.subject[:12], details[:80])
        table.add_row(str(event.id), *map(one_line, row))
    console.print(table)


@app.command()
def verify(
    anchors: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Heads that `driftline audit anchor` wrote. Default: as configured."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Find edited, removed, reordered or inserted records, and name the first. Exit code 1 when there is one."""
    from services.store.audit_anchors import read_all_anchors
    from services.store.audit_verify import verify_chain
    from services.store.database import Store
    from tasks.core.settings import settings

    heads = read_all_anchors(settings(), anchors)
    with closing(Store(settings())) as store:
        found = verify_chain(store, heads)
    if json:
        print(found.model_dump_json(indent=2))
        raise typer.Exit(0 if found.intact else 1)
    if found.tampering:
        raise DriftlineError(
            "The audit log was changed.",
            where=f"record {found.tampering.id}",
            found=found.tampering.finding,
            todo="Restore the database from a backup, and compare the records from this one on.",
        )
    stamped = sum(bool(head.stamp) for head in heads)
    compared = f", {found.anchors} anchors match" + (f", {stamped} with time stamps" if stamped else "")
    compared = compared if heads else ""
    print(f"{found.records:,} records, intact{compared}; head {found.head.digest}")


@app.command()
def anchor(
    file: Annotated[
        Path | None, typer.Argument(help="Where this line is appended: a place out of reach. Default: as configured.")
    ] = None,
) -> None:
    """Anchor the head of the chain in a file, a git note or both, so that a removed tail or a rewritten chain is found.

    With DRIFTLINE_ANCHOR_TSA, a server stamps the time of the anchor (RFC 3161).
    """
    from services.store.audit import record_audit_event
    from services.store.audit_anchors import write_anchors
    from services.store.audit_verify import chain_head
    from services.store.database import Store
    from tasks.core.settings import settings

    with closing(Store(settings())) as store:
        head = chain_head(store)
        places = write_anchors(head, settings(), file)
        with store.writing() as connection:
            record_audit_event(connection, ANCHOR, head.digest, record=head.id, places=places)
    print(f"record {head.id} {head.digest} -> {', '.join(places)}")
