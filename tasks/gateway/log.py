"""The request log: what was asked and answered, in Parquet by day, written beside the answers and never before them."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.foundation.duck import connect, scan
from tasks.foundation.files import whole
from tasks.gateway.call import Call

if TYPE_CHECKING:
    import duckdb

WAITING = 20_000  # calls; what comes while so many wait to be written is not logged
EVERY = 0.02  # seconds between writes: what one takes, calls meanwhile wait for; and so much is lost by a kill
BATCH = 5_000  # calls of a Parquet file, or
LONGEST = 60.0  # seconds that calls wait for one
TOGETHER = 200  # calls in memory while a file is made
NUMBERS = ("status", "retries", "tokens_in", "tokens_cached", "tokens_out", "price")
SECONDS = ("at", "engine_seconds", "seconds")
OF_CALL = ("id", "interface", "state", *NUMBERS, *SECONDS)
COLUMNS = (*OF_CALL, "team", "key", "case", "digest", "role", "asked", "answered")


class RequestLog:
    """Calls go to a file of lines at once, and from there in batches to `day=.../`; what a killed one left is found."""

    def __init__(self, folder: Path, worker: str, logged: Callable[[bytes], str], dropped: Callable[[], None]) -> None:
        """`logged` says what may be written of a request or an answer; `dropped` is told of a call that is not."""
        self._folder, self._logged, self._dropped = folder, logged, dropped
        self._calls: queue.Queue[Call] = queue.Queue(WAITING)
        self._ends = threading.Event()
        folder.mkdir(parents=True, exist_ok=True)
        self._lines = (folder / f"{worker}.jsonl").open("a+", encoding="utf-8")
        fcntl.flock(self._lines, fcntl.LOCK_EX)  # as long as we live, it is nobody else's to take up
        self._count, self._since = 0, time.monotonic()
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def put(self, call: Call) -> None:
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._dropped()

    def close(self) -> None:
        """Write what is left."""
        self._ends.set()
        self._thread.join()

    def _write(self) -> None:
        take_up(self._folder)
        while not self._ends.wait(EVERY):
            self._drain()
            if self._count >= BATCH or (self._count and time.monotonic() - self._since > LONGEST):
                self._pack()
        self._drain()
        self._pack()
        Path(self._lines.name).unlink(missing_ok=True)
        self._lines.close()

    def _drain(self) -> None:
        while not self._calls.empty():
            call = self._calls.get_nowait()
            self._lines.write(json.dumps(self._row(call)) + "\n")  # ASCII: other letters can end lines, too
            self._count += 1
        self._lines.flush()  # to the system: from here on, only the machine can lose it

    def _row(self, call: Call) -> dict[str, Any]:
        route = call.share.route
        return {
            **{name: getattr(call, name) for name in OF_CALL},
            "team": call.key.team,
            "key": call.key.id,
            "case": route.case,
            "digest": route.digest,
            "role": call.share.role,
            "asked": self._logged(call.asked),
            "answered": self._logged(call.answered),
        }

    def _pack(self) -> None:
        self._lines.seek(0)
        pack(self._lines, self._folder)
        self._lines.truncate(0)
        self._count, self._since = 0, time.monotonic()


def pack(lines: Iterable[str], folder: Path) -> None:
    """Write lines as Parquet, one file a day of theirs, with no more than a few of them in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, schema = _rows_of(lines), _schema()
    with contextlib.ExitStack() as files:
        writers: dict[str, pq.ParquetWriter] = {}
        while some := list(itertools.islice(rows, TOGETHER)):
            days: dict[str, list[dict[str, Any]]] = {}
            for row in some:
                days.setdefault(f"{datetime.fromtimestamp(row['at'], UTC):%Y-%m-%d}", []).append(row)
            for day, its in days.items():
                if day not in writers:
                    temporary = files.enter_context(whole(folder / f"day={day}" / f"{its[0]['id']}.parquet"))
                    writers[day] = files.enter_context(pq.ParquetWriter(temporary, schema))
                writers[day].write_table(pa.Table.from_pylist(its, schema=schema))
    pa.default_memory_pool().release_unused()


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB in which the view `logged` has every call of the log; one that is just being packed may stand twice."""
    import pyarrow as pa

    fresh = pa.Table.from_pylist(list(_rows_of(_lines_in(folder))), _schema())
    packed = sorted(folder.glob("day=*/*.parquet"))  # after the lines: else what is packed in between stands nowhere
    with connect() as db:
        db.register("fresh", fresh)
        db.execute(f"CREATE TEMP VIEW logged AS FROM fresh {f'UNION ALL FROM {scan(*packed)}' if packed else ''}")
        yield db


def _lines_in(folder: Path) -> Iterator[str]:
    """What is not packed yet; a gateway that ends meanwhile takes its lines with it, into Parquet."""
    for path in folder.glob("*.jsonl"):
        with contextlib.suppress(FileNotFoundError):
            yield from path.read_text(encoding="utf-8", errors="replace").splitlines()


def _rows_of(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The calls that lines tell of; the last line of a killed process may be half a one."""
    for line in lines:
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def take_up(folder: Path) -> None:
    """Pack the lines that killed gateways have left."""
    for path in folder.glob("*.jsonl"):
        with path.open("r+", encoding="utf-8", errors="replace") as lines:
            try:
                fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # its gateway lives
            pack(lines, folder)
            os.unlink(path)


def _schema() -> Any:
    import pyarrow as pa

    kinds = {**dict.fromkeys(NUMBERS, pa.int64()), **dict.fromkeys(SECONDS, pa.float64())}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
