"""What a language case was asked in a window: rows of a source, or messages replayed from wordings and facts."""

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
from tasks.data.config import Answer, Pairs, Source, Templates, Traffic
from tasks.data.language.feedback import is_log, right_answer
from tasks.data.language.pairs import PairFormat, conversation, write_if_json
from tasks.data.language.source_tables import read_rows, source_tables
from tasks.data.language.templates import Fact, PairGenerator, day_of, read_facts
from tasks.data.results import WindowMessages

if TYPE_CHECKING:
    import duckdb

# of a log: what stands of it beside the messages
GIVEN = {"given": "answer"} | {name: name for name in ("release", "tokens_in", "tokens_out", "seconds")}
SEED = "asked"  # apart from that of the pairs, which begins with the case's own


def check_traffic(traffic: Traffic, sources: Mapping[str, Source]) -> None:
    """Raises: CaseError when the named source can't say what was asked when."""
    if traffic.source is not None and (traffic.source not in sources or sources[traffic.source].time is None):
        raise CaseError(
            "The messages have no source with a time.",
            where="traffic.source",
            found=traffic.source,
            allowed=", ".join(name for name, source in sources.items() if source.time) or "none of this case's sources",
            todo="Declare the source, and its column of the moment when each message came as `time`.",
        )


def gather_messages(
    case: str,
    traffic: Traffic,
    pairs: Pairs,
    answer: Answer,
    sources: Mapping[str, Source],
    snapshot: Path,
    state: Path,
    start: datetime,
    end: datetime,
) -> WindowMessages:
    """Write the messages of start <= event_timestamp < end; equal inputs give the same file, made once.

    `snapshot` is the folder of validated data, SOURCE/BATCH.parquet.
    Raises: CaseError when the case does not say what is asked, or wordings don't render; DataError for other columns.
    """
    check_traffic(traffic, sources)
    if traffic.source is None and pairs.templates is None:
        raise CaseError(
            "The case does not say what it is asked.",
            where="traffic",
            found="neither traffic.source nor pairs.templates",
            todo="Name a source of requests that declares its time as traffic.source.",
        )
    files = {name: sorted((snapshot / name).glob("*.parquet")) for name in sources}
    form = PairFormat(answer)
    with source_tables({name: paths for name, paths in files.items() if paths}) as db:
        if traffic.source is not None:
            rows = _read(db, traffic.source, sources[traffic.source], form, pairs.liked, start, end)
        else:
            rows = _replay(db, traffic, pairs, form, start, end)
    if not traffic.outcomes:
        rows = [{**row, "answer": None} for row in rows]
    rows.sort(key=lambda row: (row["event_timestamp"], row["example_id"]))
    path = (
        state
        / "asked"
        / case
        / f"{digest_of([{**row, 'event_timestamp': str(row['event_timestamp'])} for row in rows])[:16]}.parquet"
    )
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


def _replay(
    db: duckdb.DuckDBPyConnection, traffic: Traffic, pairs: Pairs, form: PairFormat, start: datetime, end: datetime
) -> list[dict[str, Any]]:
    """Messages of each day, the same for the day whatever the window: held-out wordings filled with the day's facts."""
    kinds = [(each, _by_day(read_facts(db, each))) for each in (pairs.templates, traffic.shift) if each]
    rows, day = [], start.date()
    while datetime.combine(day, time(), UTC) < end:
        chance = random.Random(f"{SEED}/{pairs.seed}/{day}")
        for place in range(traffic.a_day):
            moment = datetime.combine(day, time(), UTC) + timedelta(days=1) * place / traffic.a_day
            shifted = len(kinds) > 1 and chance.random() < traffic.share
            templates, facts = kinds[shifted]
            made = _message(templates, facts, day, form, chance)
            if made is not None and start <= moment < end:
                text = made["messages"][0]["content"]
                rows.append(
                    {**made, "example_id": f"{moment:%Y%m%d-%H%M}-{digest_of(text)[:8]}", "event_timestamp": moment}
                )
        day += timedelta(days=1)
    return rows


def _by_day(facts: Mapping[str, list[Fact]]) -> dict[str, dict[date | None, list[Fact]]]:
    """The facts of each intent by their day; under None, those of any day."""
    sorted_out: dict[str, dict[date | None, list[Fact]]] = {}
    for name, rows in facts.items():
        days = sorted_out[name] = {}
        for fact in rows:
            days.setdefault(day_of(fact["day"]) if "day" in fact else None, []).append(fact)
    return sorted_out


def _message(
    templates: Templates,
    facts: Mapping[str, Mapping[date | None, list[Fact]]],
    day: date,
    form: PairFormat,
    chance: random.Random,
) -> dict[str, Any] | None:
    """One message about a fact of the day and its right answer; None where the day has no facts of its intent."""
    intents = templates.intents
    (name,) = chance.choices(list(intents), [intent.share for intent in intents.values()])
    mine = [*facts[name].get(day, ()), *facts[name].get(None, ())]
    if not mine:
        return None
    maker = PairGenerator(name, intents[name], templates, "held_out", form, chance)
    fact, wording = chance.choice(mine), chance.choice(intents[name].held_out)
    pair = maker.pair(wording, maker.say(wording, fact), fact)
    return {"messages": list(pair.messages), "answer": pair.answer, "intent": name}


def _read(
    db: duckdb.DuckDBPyConnection,
    name: str,
    source: Source,
    form: PairFormat,
    liked: float,
    start: datetime,
    end: datetime,
) -> list[dict[str, Any]]:
    """The rows of a source as messages, with the right answers that it knows; of a log, with those that were given."""
    moment, table = quote_identifier(str(source.time)), quote_identifier(name)
    found = read_rows(
        db, f"SELECT *, {moment}::TIMESTAMPTZ AS event_timestamp FROM {table} WHERE event_timestamp >= $1 AND "
        "event_timestamp < $2", [start, end]
    )  # fmt: skip
    column = "messages" if found and "messages" in found[0] else "prompt"
    if found and column not in found[0]:
        raise DataError(
            f"Source {name} holds no messages.",
            where="traffic.source",
            found=f"columns {', '.join(found[0])}",
            allowed="messages, or prompt; and completion where the right answer is known; or those of a log",
            todo="Name the columns so in the source's SQL.",
        )
    return [
        {
            "example_id": "-".join(str(row[key]) for key in source.key),
            "event_timestamp": row["event_timestamp"],
            "messages": [each for each in conversation(row[column]) if each["role"] != "system"],
            "answer": write_if_json(said, form) if (said := right_answer(row, liked)) else None,
            "intent": str(row.get("intent") or name),
            **({given: row.get(column) for given, column in GIVEN.items()} if is_log(found) else {}),
        }
        for row in found
    ]


def _write(rows: list[dict[str, Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    told = [{**row, "messages": json.dumps(row["messages"], ensure_ascii=False)} for row in rows]
    kinds = {"example_id": pa.string(), "event_timestamp": pa.timestamp("us", "UTC")}
    kinds |= {name: pa.string() for name in ("messages", "answer", "intent")}
    if told and "given" in told[0]:
        kinds |= {"given": pa.string(), "release": pa.string()}
        kinds |= {"tokens_in": pa.int64(), "tokens_out": pa.int64(), "seconds": pa.float64()}
    pq.write_table(pa.Table.from_pylist(told, pa.schema(list(kinds.items()))), path)
