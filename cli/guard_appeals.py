"""Refused requests that people judged, as a labelled set: `label` 1 is a right refusal, 0 a false alarm."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import select

from services.gateway.request_log import reading_log
from services.store.database import Store, usage_records
from services.store.feedback import acceptance
from tasks.core.errors import InputError
from tasks.core.files import write_text
from tasks.core.settings import settings
from tasks.language.messages import USER


def write_appeals(case: str, out: Path) -> int:
    """Add the texts of judged refusals, as the log has them, to a labelled set; returns their number."""
    config = settings()
    refused = usage_records.c.case == case, usage_records.c.guard.is_not(None)
    with closing(Store(config)) as store, store.reading() as connection:
        accepted = {id_: ok for (id_, _), ok in acceptance(connection, *refused).items()}
        records = connection.execute(select(usage_records.c.id, usage_records.c.guard).where(*refused)).all()
    rules = {id_: guard["refused_by"] for id_, guard in records if id_ in accepted and guard.get("refused_by")}
    with reading_log(config.state / "gateway" / "requests") as log:
        logged = log.execute("SELECT DISTINCT id, request FROM logged WHERE id IN (SELECT unnest(?))", [[*rules]])
        texts = {id_: _text(body) for id_, body in logged.fetchall()}
    judged = {
        texts[id_]: {"text": texts[id_], "label": int(accepted[id_]), "rule": f"{case}/{rule}"}
        for id_, rule in rules.items()
        if texts.get(id_)
    }
    rows = {row["text"]: row for row in _labelled_rows(out)} | judged
    write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows.values()))
    return len(judged)


def _labelled_rows(path: Path) -> list[dict[str, Any]]:
    """What the file has already; a text that is judged anew replaces its row. Raises: InputError."""
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            rows.append({**row, "text": str(row["text"])})
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                "A line of the labelled set can't be read; nothing was written.",
                where=f"{path}, line {number}",
                found=line[:80],
                allowed='{"text": "...", "label": 0 or 1}',
            ) from error
    return rows


def _text(body: str) -> str:
    """The last message of the user in a logged request; empty where the log has none."""
    try:
        request: Any = json.loads(body)
    except ValueError:
        return ""
    messages = request.get("messages") if isinstance(request, dict) else None
    turns = [each.get("content") for each in messages or () if isinstance(each, dict) and each.get("role") == USER]
    return turns[-1] if turns and isinstance(turns[-1], str) else ""
