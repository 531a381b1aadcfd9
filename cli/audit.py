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
        Path | None, typer.Option(metavar="FILE", help="Heads that `driftline audit anchor` wrote.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Find edited, removed, reordered or inserted records, and name the first. Exit code 1 when there is one."""
    from services.store.audit_verify import read_anchors, verify_chain
    from services.store.database import Store
    from tasks.core.settings import settings

    heads = read_anchors(anchors) if anchors else ()
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
    compared = f", {found.anchors} anchors match" if heads else ""
    print(f"{found.records:,} records, intact{compared}; head {found.head.digest}")


@app.command()
def anchor(file: Annotated[Path, typer.Argument(help="Where this line is appended: a place out of reach.")]) -> None:
    """Append the head of the chain to a file, so that a removed tail or a rewritten chain is found later."""
    from services.store.audit import record_audit_event
    from services.store.audit_verify import chain_head, write_anchor
    from services.store.database import Store
    from tasks.core.settings import settings

    with closing(Store(settings())) as store:
        head = chain_head(store)
        write_anchor(head, file)
        with store.writing() as connection:
            record_audit_event(connection, ANCHOR, head.digest, record=head.id, file=str(file))
    print(f"record {head.id} {head.digest} -> {file}")
