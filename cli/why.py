"""`driftline why` and `driftline history`: who decided what answered a request, or answered a case at a moment."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from rich.text import Text

from tasks.core.console import PlainTable, console, styled
from tasks.core.display import escape_terminal, one_line
from tasks.core.settings import settings

LONG = 110  # characters of a value on one line
TEXTS = ("audit_records", "missing")


def why(request_id: str, as_json: bool) -> None:
    """Print what led to the answer of a request. Raises: InputError when no request has this id."""
    from services.gateway.explanation import explain_request

    found = explain_request(request_id, settings())
    if as_json:
        print(escape_terminal(found.model_dump_json(indent=2)))
        return
    request = found.request
    console.print(Text.assemble(styled(one_line(request["id"]), "bold"), f" of {one_line(request['case'])}"))
    table = PlainTable("", "")
    for name, part in found.model_dump(mode="json").items():
        if name not in TEXTS:
            table.add_row(name, one_line(_line(part)))
    console.print(table)
    for sentence in found.missing:
        console.print(Text.assemble("not recorded: ", styled(one_line(sentence), "yellow")))
    numbers = ", ".join(map(str, found.audit_records)) or "none"
    console.print(f"audit records {numbers}: driftline audit verify")


def _line(part: Any) -> str:
    """A part as one line: what is long is cut, and stands whole in --json."""
    parts = part if isinstance(part, list) else [part]
    lines = []
    for each in parts:
        texts = [f"{name} {_short(value)}" for name, value in each.items() if value not in (None, "", {}, [])]
        lines.append(", ".join(texts))
    return "; ".join(lines) or "-"


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) > 40 and all(c in "0123456789abcdef" for c in value[:40]):
        return value[:12]
    if isinstance(value, Mapping):
        value = ", ".join(f"{name} {_short(each)}" for name, each in value.items())
    text = value if isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONG else f"{text[:LONG]}..."


def history(case: str, at: str | None, as_json: bool) -> None:
    """Print what was in production at a moment, by whom and why; without one, all changes."""
    from cli.main import parse_as_of
    from services.rollout.past import production_at, production_changes
    from services.store.database import Store

    moment = parse_as_of(at)
    with closing(Store(settings())) as store:
        changes = production_changes(store, case)
    if moment is not None:
        changes = [production_at(case, changes, moment)]
    if as_json:
        print("[" + ",\n".join(change.model_dump_json() for change in changes) + "]")
        return
    table = PlainTable("from (UTC)", "release", "other shares", "by", "reason", "audit record")
    for change in changes:
        others = ", ".join(f"{share.role} {share.percent:g} % {share.digest[:12]}" for share in change.shares) or "-"
        row = f"{change.at:%Y-%m-%d %H:%M:%S}", change.champion[:12] or "none", others, change.by, change.reason
        table.add_row(*map(one_line, row), str(change.audit_record))
    console.print(table)
