"""What the gateway was asked and answered for a case, with what people said of it: one file, which a source can be."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from services.gateway.request_log import reading_log
from services.rollout.routing import LANGUAGE, SHADOW
from services.store.database import CACHED, DONE, Store, feedback, releases, usage_records
from services.store.feedback import rating_of
from tasks.core.duckdb import quote_literal
from tasks.core.errors import CaseError, InputError
from tasks.core.files import atomic_path
from tasks.core.settings import Settings

WORDS = ("id", "feedback", "correction", "completion")
ANSWERED = f"""
SELECT call.id AS request_id, make_timestamptz((call.at * 1e6)::BIGINT) AS asked_at, asked->>'messages' AS messages,
    answered AS answer, feedback, correction, completion, digest AS release, role, state, tokens_in, tokens_out,
    seconds, price / 1e9 AS price
FROM (SELECT DISTINCT ON (id) * FROM logged) call LEFT JOIN said ON said.id = call.id
WHERE "case" = $case AND interface = 'chat' AND role <> '{SHADOW}' AND state IN ('{DONE}', '{CACHED}')
    AND call.at + seconds <= $as_of AND json_valid(asked) AND asked->>'messages' IS NOT NULL
ORDER BY asked_at, request_id
"""


def export_log(case: str, as_of: datetime, out: Path, settings: Settings) -> Path:
    """Write all that had been answered by `as_of`, with all that had been said of it by then; equal logs, equal files.

    One row a chat, the oldest first: request_id, asked_at (UTC), messages (JSON), answer; feedback (up, down or a
    score), correction, completion (a right answer); release, role, state, tokens_in, tokens_out, seconds, price.
    Shadows, and calls that were refused or failed, answered nobody. A request too long for the log is left out.
    Raises: InputError when the log keeps no texts; CaseError for a table's case.
    """
    with closing(Store(settings)) as store, store.reading() as of:
        known = of.execute(select(releases.c.metadata).where(releases.c.case == case)).scalars().first()
        check_log(case, known["kind"] if known else LANGUAGE, settings)
        words = _said(of, case, as_of)
    import pyarrow as pa

    with reading_log(settings.state / "gateway" / "requests") as db, atomic_path(out) as temporary:
        db.register("said", pa.Table.from_pylist(words, pa.schema([(name, pa.string()) for name in WORDS])))
        copy = f"COPY ({ANSWERED}) TO {quote_literal(temporary)} (FORMAT parquet)"
        db.execute(copy, {"case": case, "as_of": as_of.timestamp()})
    return out


def check_log(case: str, kind: str, settings: Settings) -> None:
    """Raises: InputError when the log keeps no texts; CaseError for a table's case."""
    if settings.gateway_log == "none":
        raise InputError(
            "The gateway's log keeps no texts, so it can't be a source.",
            where="DRIFTLINE_GATEWAY_LOG",
            found="none",
            allowed="masked or full",
            todo="Change the setting and start the gateway again, or take the source out of the case.",
        )
    if kind != LANGUAGE:
        raise CaseError(
            "A table's log is no source: its calls are no chats.",
            where=f"log://{case}",
            found=f"kind: {kind}",
            allowed=f"a case with kind: {LANGUAGE}",
            todo="Keep what was asked in a table of your own; its outcomes come from there.",
        )


def _said(of: Connection, case: str, as_of: datetime) -> list[dict[str, Any]]:
    """What was last said of each call."""
    known = select(feedback.c.request_id, feedback.c.payload).join(
        usage_records, usage_records.c.id == feedback.c.request_id
    )
    known = known.where(usage_records.c.case == case, feedback.c.at <= as_of.timestamp()).order_by(feedback.c.id)
    words: dict[str, dict[str, Any]] = {}
    for id_, said in of.execute(known):
        if not isinstance(said, dict):
            continue  # of a store that somebody wrote by hand
        label = said.get("label")
        told = {
            "feedback": rating_of(said),
            "correction": said["corrected"] if isinstance(said.get("corrected"), str) else None,
            "completion": label if isinstance(label, str) else None,
        }
        words.setdefault(id_, {"id": id_}).update({name: value for name, value in told.items() if value is not None})
    return list(words.values())
