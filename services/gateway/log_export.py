"""Exports the request log of a case with its feedback: chats as a data source, scored rows for monitoring."""

from __future__ import annotations

import json
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
from tasks.monitor.results import LoggedQuestions, ScoredRows
from tasks.release.results import Release

OPINION_COLUMNS = ("id", "feedback", "correction", "completion")
ANSWERED = f"""
SELECT call.id AS request_id, make_timestamptz((call.at * 1e6)::BIGINT) AS requested_at,
    request->>'messages' AS messages, response AS answer, feedback, correction, completion, digest AS release, role,
    state, tokens_in, tokens_out, seconds, price / 1e9 AS price
FROM (SELECT DISTINCT ON (id) * FROM logged) call LEFT JOIN opinions ON opinions.id = call.id
WHERE "case" = $case AND interface = 'chat' AND role <> '{SHADOW}' AND state IN ('{DONE}', '{CACHED}')
    AND call.at + seconds <= $as_of AND json_valid(request) AND request->>'messages' IS NOT NULL
ORDER BY requested_at, request_id
"""
QUESTIONS = f"""
SELECT call.id AS request_id, make_timestamptz((call.at * 1e6)::BIGINT) AS requested_at, request, retrieval, feedback
FROM (SELECT DISTINCT ON (id) * FROM logged) call LEFT JOIN opinions ON opinions.id = call.id
WHERE "case" = $case AND digest = $release AND role <> '{SHADOW}' AND state IN ('{DONE}', '{CACHED}')
    AND retrieval IS NOT NULL AND call.at >= $start AND call.at + seconds <= $as_of
ORDER BY requested_at, request_id
"""
SCORED = f"""
WITH calls AS (
    SELECT DISTINCT ON (id) id, logged.at, request, response FROM logged
    WHERE "case" = $case AND digest = $release AND interface = 'predict' AND role <> '{SHADOW}' AND state = '{DONE}'
        AND logged.at >= $start AND logged.at < $as_of AND logged.at + seconds <= $as_of
), parts AS (
    SELECT id, calls.at, CASE WHEN json_valid(request) THEN from_json(request->'$.rows', '["JSON"]') END AS sent,
        CASE WHEN json_valid(response) THEN from_json(response->'$.predictions', '["JSON"]') END AS scored
    FROM calls
)
"""
ROWS = """
SELECT id AS request_id, make_timestamptz((parts.at * 1e6)::BIGINT) AS at, unnest(range(len(sent))) AS position,
    unnest(sent) AS features, unnest(scored) AS prediction
FROM parts WHERE len(sent) = len(scored)
"""
UNREADABLE = "SELECT count(*) FROM parts WHERE coalesce(len(sent) <> len(scored), true)"


def export_log(case: str, as_of: datetime, out: Path, settings: Settings) -> Path:
    """Write all calls that were answered by `as_of`, with their feedback until then; equal logs give equal files.

    One row a chat, the oldest first: request_id, requested_at (UTC), messages (JSON), answer; feedback (up, down or a
    score), correction, completion (the correct answer); release, role, state, tokens_in, tokens_out, seconds, price.
    Shadow calls, and calls that were refused or failed, are left out; so is a request too long for the log.
    Raises: InputError when the log stores no texts; CaseError for a tabular case.
    """
    with closing(Store(settings)) as store, store.reading() as connection:
        known = connection.execute(select(releases.c.metadata).where(releases.c.case == case)).scalars().first()
        check_log(case, known["kind"] if known else LANGUAGE, settings)
        opinions = _feedback_by_call(connection, case, as_of)
    import pyarrow as pa

    with reading_log(settings.state / "gateway" / "requests") as db, atomic_path(out) as temporary:
        schema = pa.schema([(name, pa.string()) for name in OPINION_COLUMNS])
        db.register("opinions", pa.Table.from_pylist(opinions, schema))
        copy = f"COPY ({ANSWERED}) TO {quote_literal(temporary)} (FORMAT parquet)"
        db.execute(copy, {"case": case, "as_of": as_of.timestamp()})
    return out


def export_scored_rows(release: Release, start: datetime, as_of: datetime, out: Path, settings: Settings) -> ScoredRows:
    """Write the rows that a tabular release scored through the gateway from a moment to another, oldest first.

    Columns: request_id, at (UTC), position (in the request), features and prediction (JSON), label (JSON, of the
    feedback; empty without). Shadow calls are left out, as are calls longer than the log stores, which are counted.
    """
    import pyarrow as pa

    folder = settings.state / "gateway" / "requests"
    with closing(Store(settings)) as store, store.reading() as connection:
        labels = _labels_by_row(connection, release.case, as_of)
    with reading_log(folder) as db, atomic_path(out) as temporary:
        names = ("request_id", "example_id", "label")
        db.register("labels", pa.Table.from_pylist(labels, pa.schema([(name, pa.string()) for name in names])))
        values = {"case": release.case, "release": release.digest, "start": start.timestamp()}
        db.execute(f"CREATE TEMP TABLE parts AS {SCORED} FROM parts", values | {"as_of": as_of.timestamp()})
        # a label without an example_id is of the one row of its request
        rows = f"""
            SELECT scored.*, label FROM ({ROWS}) scored LEFT JOIN labels ON labels.request_id = scored.request_id
                AND (labels.example_id = prediction->>'$.example_id' OR (labels.example_id = '' AND position = 0))
            ORDER BY scored.at, request_id, position"""
        db.execute(f"COPY ({rows}) TO {quote_literal(temporary)} (FORMAT parquet)")
        unreadable = db.execute(UNREADABLE).fetchall()[0][0]
    return ScoredRows(path=out, unreadable=unreadable)


def export_questions(
    release: Release, start: datetime, as_of: datetime, out: Path, settings: Settings
) -> LoggedQuestions:
    """Write the chats and searches that a release answered from its knowledge base in a window, the oldest first.

    Shadow calls, and calls that were refused or failed, are left out.
    """
    import pyarrow as pa

    with closing(Store(settings)) as store, store.reading() as connection:
        opinions = _feedback_by_call(connection, release.case, as_of)
    with reading_log(settings.state / "gateway" / "requests") as db, atomic_path(out) as temporary:
        schema = pa.schema([(name, pa.string()) for name in OPINION_COLUMNS])
        db.register("opinions", pa.Table.from_pylist(opinions, schema))
        values = {"case": release.case, "release": release.digest, "start": start.timestamp()}
        db.execute(
            f"COPY ({QUESTIONS}) TO {quote_literal(temporary)} (FORMAT parquet)",
            values | {"as_of": as_of.timestamp()},
        )
    return LoggedQuestions(path=out, case=release.case, release=release.digest, start=start, end=as_of)


def check_log(case: str, kind: str, settings: Settings) -> None:
    """Raises: InputError when the log stores no texts; CaseError for a tabular case."""
    if settings.gateway_log == "none":
        raise InputError(
            "The gateway's log stores no texts, so it can't be a source.",
            where="DRIFTLINE_GATEWAY_LOG",
            found="none",
            allowed="masked or full",
            todo="Change the setting and restart the gateway, or remove the source from the case.",
        )
    if kind != LANGUAGE:
        raise CaseError(
            "The log of a tabular case can't be a source: its calls are not chats.",
            where=f"log://{case}",
            found=f"kind: {kind}",
            allowed=f"a case with kind: {LANGUAGE}",
            todo="Use your own table of requests and outcomes.",
        )


def _labels_by_row(connection: Connection, case: str, as_of: datetime) -> list[dict[str, str]]:
    """The latest label of each row of each request, as JSON."""
    query = select(feedback.c.request_id, feedback.c.payload).join(
        usage_records, usage_records.c.id == feedback.c.request_id
    )
    query = query.where(usage_records.c.case == case, feedback.c.at <= as_of.timestamp()).order_by(feedback.c.id)
    labels: dict[tuple[str, str], str] = {}
    for id_, payload in connection.execute(query):
        if isinstance(payload, dict) and payload.get("label") is not None:
            labels[id_, str(payload.get("example_id") or "")] = json.dumps(payload["label"])
    return [{"request_id": id_, "example_id": row, "label": label} for (id_, row), label in labels.items()]


def _feedback_by_call(connection: Connection, case: str, as_of: datetime) -> list[dict[str, Any]]:
    """The latest feedback on each call."""
    query = select(feedback.c.request_id, feedback.c.payload).join(
        usage_records, usage_records.c.id == feedback.c.request_id
    )
    query = query.where(usage_records.c.case == case, feedback.c.at <= as_of.timestamp()).order_by(feedback.c.id)
    opinions: dict[str, dict[str, Any]] = {}
    for id_, payload in connection.execute(query):
        if not isinstance(payload, dict):
            continue  # a row that was edited by hand
        label = payload.get("label")
        values = {
            "feedback": rating_of(payload),
            "correction": payload["corrected"] if isinstance(payload.get("corrected"), str) else None,
            "completion": label if isinstance(label, str) else None,
        }
        known = {name: value for name, value in values.items() if value is not None}
        opinions.setdefault(id_, {"id": id_}).update(known)
    return list(opinions.values())
