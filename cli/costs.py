"""`driftline costs`: usage and spending from the usage records."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

from services.store.costs import summarize_costs
from services.store.database import Store
from tasks.core.console import PlainTable, console
from tasks.core.settings import settings

CALLS = ("calls", "failed", "cached", "tokens_in", "tokens_out", "engine_seconds")
COLUMNS = (*CALLS, "spent", "training", "evaluation", "saved", "judged", "accepted", "per_accepted")


def print_costs(by: str, as_json: bool) -> None:
    """Print totals by team, case, release or day."""
    with closing(Store(settings())) as store:
        rows = summarize_costs(store, by)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = PlainTable(by, *(name.replace("_", " ") for name in COLUMNS))
    for row in rows:
        table.add_row(str(row[by])[:40], *(_format(row[name]) for name in COLUMNS))
    console.print(table if rows else "There are no calls yet.")


def _format(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else f"{value:,}"
