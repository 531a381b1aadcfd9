"""The requests of a language case in a time window: rows of a source, or messages generated from templates."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.config import digest_of
from tasks.core.duckdb import quote_identifier
from tasks.core.errors import CaseError, DataError
from tasks.core.files import atomic_path, file_digest
from tasks.data.config import Source, Templates, Traffic, TrafficSpec
from tasks.data.language.conversation import conversation
from tasks.data.language.feedback import expected_answer, is_log
from tasks.data.language.pairs import PairFormat, write_if_json
from tasks.data.language.source_tables import read_rows, source_tables
from tasks.data.language.templates import Fact, PairGenerator, day_of, read_facts
from tasks.data.results import Snapshot, TimeWindow, WindowMessages

if TYPE_CHECKING:
    import duckdb

# columns of a log beside the messages
LOG_COLUMNS = {"given": "answer"} | {name: name for name in ("release", "tokens_in", "tokens_out", "seconds")}
SEED = "asked"  # differs from the seed of the pairs, which begins with the case's own


def check_traffic(traffic: Traffic, sources: Mapping[str, Source]) -> None:
    """Raises: CaseError when the named source does not exist or has no time."""
    if traffic.source is not None and (traffic.source not in sources or sources[traffic.source].time is None):
        raise CaseError(
            "The messages have no source with a time.",
            where="traffic.source",
            found=traffic.source,
            allowed=", ".join(name for name, source in sources.items() if source.time) or "none of this case's sources",
            todo="Declare the source, and its column with the time of each message as `time`.",
        )


def gather_messages(spec: TrafficSpec, snapshot: Snapshot, window: TimeWindow, state: Path) -> WindowMessages:
    """Write the messages of the window; equal inputs give the same file, written once.

    Raises: CaseError for a case without requests, or for templates that don't render; DataError for other columns.
    """
    check_traffic(spec.traffic, spec.sources)
    if spec.traffic.source is None and spec.pairs.templates is None:
        raise CaseError(
            "The case has no source of requests.",
            where="traffic",
            found="neither traffic.source nor pairs.templates",
            todo="Name a source of requests that declares its time as traffic.source.",
        )
    files = {name: sorted((snapshot.path / name).glob("*.parquet")) for name in spec.sources}
    with source_tables({name: paths for name, paths in files.items() if paths}) as db:
        rows = _read(db, spec, window) if spec.traffic.source is not None else _generate(db, spec, window)
    if not spec.traffic.outcomes:
        rows = [{**row, "answer": None} for row in rows]
    rows.sort(key=lambda row: (row["event_timestamp"], row["example_id"]))
    digest = digest_of([{**row, "event_timestamp": str(row["event_timestamp"])} for row in rows])
    path = state / "traffic" / snapshot.case / f"{digest[:16]}.parquet"
    if not path.is_file():
        with atomic_path(path) as temporary:
            _write(rows, temporary)
    moments = [row["event_timestamp"] for row in rows]
    return WindowMessages(
        path=path,
        rows=len(rows),
        start=moments[0] if moments else None,
        end=moments[-1] if moments else None,
        digest=file_digest(path),
    )


def _generate(db: duckdb.DuckDBPyConnection, spec: TrafficSpec, window: TimeWindow) -> list[dict[str, Any]]:
    """Messages of each day, the same for the day in every window: held-out templates filled with the day's facts."""
    traffic, pairs, form = spec.traffic, spec.pairs, PairFormat(spec.answer)
    kinds = [(each, _by_day(read_facts(db, each))) for each in (pairs.templates, traffic.shift) if each]
    rows, day = [], window.start.date()
    while datetime.combine(day, time(), UTC) < window.end:
        rng = random.Random(f"{SEED}/{pairs.seed}/{day}")
        for place in range(traffic.a_day):
            moment = datetime.combine(day, time(), UTC) + timedelta(days=1) * place / traffic.a_day
            is_shifted = len(kinds) > 1 and rng.random() < traffic.share
            templates, facts = kinds[is_shifted]
            message = _message(templates, facts, day, form, rng)
            if message is not None and window.start <= moment < window.end:
                text = message["messages"][0]["content"]
                example_id = f"{moment:%Y%m%d-%H%M}-{digest_of(text)[:8]}"
                rows.append({**message, "example_id": example_id, "event_timestamp": moment})
        day += timedelta(days=1)
    return rows


def _by_day(facts: Mapping[str, list[Fact]]) -> dict[str, dict[date | None, list[Fact]]]:
    """The facts of each intent by their day; under None, those of any day."""
    by_day: dict[str, dict[date | None, list[Fact]]] = {}
    for name, rows in facts.items():
        days = by_day[name] = {}
        for fact in rows:
            days.setdefault(day_of(fact["day"]) if "day" in fact else None, []).append(fact)
    return by_day


def _message(
    templates: Templates,
    facts: Mapping[str, Mapping[date | None, list[Fact]]],
    day: date,
    form: PairFormat,
    rng: random.Random,
) -> dict[str, Any] | None:
    """One message about a fact of the day and its expected answer; None for a day without facts of its intent."""
    intents = templates.intents
    (name,) = rng.choices(list(intents), [intent.share for intent in intents.values()])
    candidates = [*facts[name].get(day, ()), *facts[name].get(None, ())]
    if not candidates:
        return None
    generator = PairGenerator(name, intents[name], templates, "held_out", form, rng)
    fact, template = rng.choice(candidates), rng.choice(intents[name].held_out)
    pair = generator.pair(template, generator.render(template, fact), fact)
    return {"messages": list(pair.messages), "answer": pair.answer, "intent": name}


def _read(db: duckdb.DuckDBPyConnection, spec: TrafficSpec, window: TimeWindow) -> list[dict[str, Any]]:
    """The rows of a source as messages, with the expected answers that it has; of a log, also with the responses."""
    name = str(spec.traffic.source)
    source, form = spec.sources[name], PairFormat(spec.answer)
    moment, table = quote_identifier(str(source.time)), quote_identifier(name)
    rows = read_rows(
        db, f"SELECT *, {moment}::TIMESTAMPTZ AS event_timestamp FROM {table} WHERE event_timestamp >= $1 AND "
        "event_timestamp < $2", [window.start, window.end]
    )  # fmt: skip
    column = "messages" if rows and "messages" in rows[0] else "prompt"
    if rows and column not in rows[0]:
        raise DataError(
            f"Source {name} has no messages.",
            where="traffic.source",
            found=f"columns {', '.join(rows[0])}",
            allowed="messages, or prompt; and completion where the right answer is known; or those of a log",
            todo="Name the columns so in the source's SQL.",
        )
    return [
        {
            "example_id": "-".join(str(row[key]) for key in source.key),
            "event_timestamp": row["event_timestamp"],
            "messages": _messages(name, row[column]),
            "answer": write_if_json(expected, form) if (expected := expected_answer(row, spec.pairs.liked)) else None,
            "intent": str(row.get("intent") or name),
            **({field: row.get(column) for field, column in LOG_COLUMNS.items()} if is_log(rows) else {}),
        }
        for row in rows
    ]


def _messages(name: str, value: Any) -> list[dict[str, str]]:
    try:
        return [each for each in conversation(value) if each["role"] != "system"]
    except ValueError as error:
        raise DataError(
            f"Source {name} has a message that can't be kept whole.",
            where="traffic.source",
            found=str(error),
            allowed="messages with a role and a text",
            todo="Exclude such rows in the source's SQL.",
        ) from error


def _write(rows: list[dict[str, Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    records = [{**row, "messages": json.dumps(row["messages"], ensure_ascii=False)} for row in rows]
    kinds = {"example_id": pa.string(), "event_timestamp": pa.timestamp("us", "UTC")}
    kinds |= {name: pa.string() for name in ("messages", "answer", "intent")}
    if records and "given" in records[0]:
        kinds |= {"given": pa.string(), "release": pa.string()}
        kinds |= {"tokens_in": pa.int64(), "tokens_out": pa.int64(), "seconds": pa.float64()}
    pq.write_table(pa.Table.from_pylist(records, pa.schema(list(kinds.items()))), path)
