"""Answer a window's messages with a release, by the engine that serves it, into Parquet that holds each message once.

The files lie where those of tables do, and are written some messages at a time: a run started again after a kill asks
only what is not answered yet.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from tasks.core.config import digest_of
from tasks.core.files import atomic_path
from tasks.core.progress import progress_step
from tasks.data.results import WindowMessages
from tasks.language.engine import start_engine
from tasks.language.messages import SYSTEM, chat_message
from tasks.language.released_model import ReleasedModel
from tasks.predict.results import Predictions
from tasks.predict.tabular import build_result, open_partitions

PART = 64  # answers that a killed run may lose


def answer(
    release_digest: str, case: str, release: Path, asked: WindowMessages, as_of: datetime, out: Path, threads: int
) -> Predictions:
    """Answer the messages of `asked` that this release has not answered yet; what it once said stays.

    What it said when it was asked, by the log, is what it is known by: that is not asked again.

    The files' columns: example_id, event_timestamp (UTC), messages (JSON), prediction (the answer as text), tokens_in,
    tokens_out, seconds, release_digest and as_of. Answers keep to the release's schema, as the service's do.
    Raises: DataError for a message that does not fit the context; Unavailable when the engine ends.
    """
    import pyarrow.parquet as pq

    with open_partitions(out, case, release_digest) as (folder, _):
        known: set[str] = set()
        for path in folder.glob("month=*/part-*.parquet"):
            known.update(pq.read_table(path, columns=["example_id"])["example_id"].to_pylist())
        everything = pq.read_table(asked.path).to_pylist()
        new = [row for row in everything if row["example_id"] not in known]
        given = [row for row in new if row.get("release") == release_digest]  # to whoever asked it at the gateway
        _keep(given, folder, as_of)
        if rest := [row for row in new if row.get("release") != release_digest]:
            _answer(rest, ReleasedModel(release), folder, as_of, threads)
        return build_result(case, release_digest, as_of, asked, len(new), folder, {_month(row) for row in everything})


def _month(row: dict[str, Any]) -> str:
    return f"{row['event_timestamp']:%Y-%m}"


def _keep(given: list[dict[str, Any]], folder: Path, as_of: datetime) -> None:
    for month, rows in groupby(given, key=_month):
        said = [{**row, "prediction": row["given"], "release_digest": row["release"]} for row in rows]
        _write(said, as_of, folder, month)


def _answer(new: list[dict[str, Any]], release: ReleasedModel, folder: Path, as_of: datetime, threads: int) -> None:
    done = 0
    with start_engine(release.model, threads=threads, slots=release.slots, context=release.context) as running:
        for month, rows in groupby(new, key=_month):
            of_month = list(rows)
            for start in range(0, len(of_month), PART):
                some = of_month[start : start + PART]
                done += len(some)
                with progress_step(f"answer {done:,} of {len(new):,}") as told:
                    asked = [[chat_message(SYSTEM, release.system), *json.loads(row["messages"])] for row in some]
                    replies = running.chat_batch(asked, max_tokens=release.answer_tokens, schema=release.schema)
                    said = [
                        {
                            **row,
                            "prediction": reply.text,
                            "tokens_in": reply.tokens_in,
                            "tokens_out": reply.tokens_out,
                            "seconds": reply.seconds,
                            "release_digest": release.digest,
                        }
                        for row, reply in zip(some, replies, strict=True)
                    ]
                    _write(said, as_of, folder, month)
                    told.figure = f"{sum(reply.tokens_out for reply in replies):,} tokens"


def _write(said: Sequence[dict[str, Any]], as_of: datetime, folder: Path, month: str) -> None:
    """Write answers of a month as one file, named by their messages."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    time, text, count = pa.timestamp("us", "UTC"), pa.string(), pa.int64()
    schema = pa.schema(
        [
            ("example_id", text),
            ("event_timestamp", time),
            ("messages", text),
            ("prediction", text),
            ("tokens_in", count),
            ("tokens_out", count),
            ("seconds", pa.float64()),
            ("release_digest", text),
            ("as_of", time),
        ]
    )
    part = folder / f"month={month}" / f"part-{digest_of([row['example_id'] for row in said])[:16]}.parquet"
    with atomic_path(part) as temporary:
        pq.write_table(pa.Table.from_pylist([{**row, "as_of": as_of} for row in said], schema), temporary)
