"""A row in what the gateway has stored: texts in the request log, feedback, and predicted classes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select, update

from services.store.database import Store, feedback, predictions, usage_records
from tasks.core.duckdb import connect, scan_parquet
from tasks.core.files import atomic_path
from tasks.core.settings import Settings
from tasks.govern.retraction import Row, mentions

TEXTS = ("request", "response", "asked", "answered")  # the last two in files of version 0.2.0


def requests_folder(settings: Settings) -> Path:
    return settings.state / "gateway" / "requests"


def find_calls(folder: Path, row: Row, examples: frozenset[str]) -> dict[Path, set[str]]:
    """The ids of the logged calls that name the row, by file; one that is not packed yet stands under its lines."""
    found: dict[Path, set[str]] = {}
    for path in sorted(folder.glob("day=*/*.parquet")):
        with connect() as db:
            query = f'SELECT id, {", ".join(_texts_in(path))} FROM {scan_parquet(path)} WHERE "case" = ?'
            ids = {id_ for id_, *texts in db.execute(query, [row.case]).fetchall() if _names(texts, row, examples)}
        found |= {path: ids} if ids else {}
    for path in sorted(folder.glob("*.jsonl")):
        calls = [json.loads(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line]
        own = [call for call in calls if call.get("case") == row.case]
        ids = {call["id"] for call in own if _names([call.get(name) for name in TEXTS], row, examples)}
        found |= {path: ids} if ids else {}
    return found


def _texts_in(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    return [name for name in TEXTS if name in pq.read_schema(path).names]


def _names(texts: list[Any], row: Row, examples: frozenset[str]) -> bool:
    for text in texts:
        try:
            if text and mentions(json.loads(text), row, examples):
                return True
        except (ValueError, RecursionError):
            continue
    return False


def forget_calls(path: Path, ids: set[str]) -> None:
    """Empty the texts of these calls in a packed file; who called, when, and at what cost stays."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    nothing = {**dict.fromkeys(_texts_in(path), ""), "retrieval": None}
    rows = [{**row, **nothing} if row["id"] in ids else row for row in table.to_pylist()]
    with atomic_path(path) as temporary:
        pq.write_table(type(table).from_pylist(rows, schema=table.schema), temporary)


def find_feedback(store: Store, row: Row, examples: frozenset[str]) -> tuple[list[int], dict[str, dict[str, Any]]]:
    """Ids of the feedback on the row, and predictions that have it, without it, by request."""
    with store.reading() as connection:
        numbers = [
            each.id
            for each in connection.execute(_of_case(feedback, row.case))
            if str(each.payload.get("example_id", "")) in examples
        ]
        classes = dict(_without(connection.execute(_of_case(predictions, row.case)), examples))
    return numbers, classes


def _of_case(table: Any, case: str) -> Any:
    return (
        select(table).join(usage_records, usage_records.c.id == table.c.request_id).where(usage_records.c.case == case)
    )


def _without(rows: Any, examples: frozenset[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for each in rows:
        if isinstance(each.classes, dict) and examples & set(each.classes):
            yield each.request_id, {id_: value for id_, value in each.classes.items() if id_ not in examples}


def forget_feedback(store: Store, ids: list[int], classes: dict[str, dict[str, Any]]) -> None:
    with store.writing() as connection:
        connection.execute(delete(feedback).where(feedback.c.id.in_(ids)))
        for request, rest in classes.items():
            query = update(predictions).where(predictions.c.request_id == request)
            connection.execute(query.values(classes=rest))
