"""Answer a window's messages with a release and its engine, into Parquet that holds each message once.

The folder is laid out as in `tabular`. Answers are written in batches, so a restarted run continues after the last.
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
from tasks.predict.responder import Responder
from tasks.predict.results import Predictions
from tasks.predict.tabular import PARTITIONS, open_partitions
from tasks.release.results import Release

PART_ROWS = 64  # answers that a killed run may lose


def answer(release: Release, messages: WindowMessages, as_of: datetime, out: Path, threads: int) -> Predictions:
    """Answer the messages that this release has not answered yet; existing answers stay.

    A logged answer of this release is taken from the log, not generated again.

    The files' columns: example_id, event_timestamp (UTC), messages (JSON), prediction (the answer as text), tokens_in,
    tokens_out, seconds, release_digest and as_of. Answers follow the release's schema, as the service's do.
    Raises: DataError for a message that does not fit the context; Unavailable when the engine ends.
    """
    import pyarrow.parquet as pq

    with open_partitions(out, release.case, release.digest) as partitions:
        folder = partitions.folder
        known: set[str] = set()
        for path in folder.glob(PARTITIONS):
            known.update(pq.read_table(path, columns=["example_id"])["example_id"].to_pylist())
        rows = pq.read_table(messages.path).to_pylist()
        new = [row for row in rows if row["example_id"] not in known]
        logged = [row for row in new if row.get("release") == release.digest]  # answered through the gateway
        _write_logged(logged, folder, as_of)
        if unanswered := [row for row in new if row.get("release") != release.digest]:
            _answer(unanswered, release, folder, as_of, threads)
        return partitions.result(as_of, messages, len(new), {_month(row) for row in rows})


def _month(row: dict[str, Any]) -> str:
    return f"{row['event_timestamp']:%Y-%m}"


def _write_logged(logged: list[dict[str, Any]], folder: Path, as_of: datetime) -> None:
    for month, rows in groupby(logged, key=_month):
        answers = [{**row, "prediction": row["given"], "release_digest": row["release"]} for row in rows]
        _write(answers, as_of, folder, month)


def _answer(new: list[dict[str, Any]], release: Release, folder: Path, as_of: datetime, threads: int) -> None:
    done = 0
    with Responder(release.folder, threads) as responder:
        for month, group in groupby(new, key=_month):
            rows = list(group)
            for start in range(0, len(rows), PART_ROWS):
                batch = rows[start : start + PART_ROWS]
                done += len(batch)
                with progress_step(f"answer {done:,} of {len(new):,}") as step:
                    replies = responder.reply([json.loads(row["messages"]) for row in batch])
                    answers = [
                        {**row, **reply, "release_digest": release.digest}
                        for row, reply in zip(batch, replies, strict=True)
                    ]
                    _write(answers, as_of, folder, month)
                    step.figure = f"{sum(reply['tokens_out'] for reply in replies):,} tokens"


def _write(answers: Sequence[dict[str, Any]], as_of: datetime, folder: Path, month: str) -> None:
    """Write answers of a month into one file, named by the digest of their ids."""
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
    part = folder / f"month={month}" / f"part-{digest_of([row['example_id'] for row in answers])[:16]}.parquet"
    with atomic_path(part) as temporary:
        pq.write_table(pa.Table.from_pylist([{**row, "as_of": as_of} for row in answers], schema), temporary)
