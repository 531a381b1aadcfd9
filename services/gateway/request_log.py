"""The request log: what was asked and answered, in Parquet by day, written beside the answers and never before them."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import logging
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.gateway.call import Call
from services.gateway.lines_file import LinesFile
from tasks.core.duckdb import connect, scan_parquet
from tasks.core.files import atomic_path
from tasks.core.loops import ThreadLoop

if TYPE_CHECKING:
    import duckdb

WAITING = 20_000  # calls; what comes while so many wait to be written is not logged
EVERY = 0.02  # seconds between writes: what one takes, calls meanwhile wait for; and so much is lost by a kill
BATCH = 5_000  # calls of a Parquet file, or
LONGEST = 60.0  # seconds that calls wait for one
MOST_WAIT = 5.0  # seconds between tries while the disk takes nothing
TOGETHER = 200  # calls in memory while a file is made
NUMBERS = ("status", "retries", "tokens_in", "tokens_cached", "tokens_out", "price")
SECONDS = ("at", "engine_seconds", "seconds")
OF_CALL = ("id", "interface", "state", *NUMBERS, *SECONDS)
COLUMNS = (*OF_CALL, "team", "key", "case", "digest", "role", "asked", "answered")


class RequestLog:
    """Calls go to a file of lines at once, and from there in batches to `day=.../`; what a killed one left is found.

    While the disk takes nothing, calls wait in memory, WAITING at most; it goes on by itself when there is space again.
    """

    def __init__(self, folder: Path, worker: str, logged: Callable[[bytes], str], dropped: Callable[[], None]) -> None:
        """`logged` says what may be written of a request or an answer; `dropped` is told of a call that is not."""
        self.lost = 0  # calls of this process that are not in the log, or without their texts
        self._folder, self._logged, self._dropped = folder, logged, dropped
        self._calls: queue.Queue[Call] = queue.Queue(WAITING)
        self._lines = LinesFile(folder / f"{worker}.jsonl")
        self._waiting: list[bytes] = []  # lines that are to be written next
        self._count, self._since, self._take_up_at = 0, time.monotonic(), 0.0
        self.loop = ThreadLoop("log", self._write, interval=EVERY, max_backoff=MOST_WAIT).start()

    def put(self, call: Call) -> None:
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._lose(1)

    def close(self) -> None:
        """Write what is left; what the disk does not take is lost, and counted."""
        self.loop.stop()
        try:
            self._drain()
            self._pack()
            self._lines.remove()
        except Exception:  # the lines that stand there are taken up by the next gateway
            logging.getLogger("driftline").exception("The rest of the request log can't be written.")
            self._lose(len(self._waiting) + self._calls.qsize())
            self._lines.close()

    def _write(self) -> None:
        """Raises: OSError, Unavailable when the disk takes nothing."""
        self._drain()
        if time.monotonic() >= self._take_up_at:
            self._take_up_at = time.monotonic() + LONGEST
            self._lose(recover_log(self._folder))
        if self._count >= BATCH or (self._count and time.monotonic() - self._since > LONGEST):
            self._pack()

    def _drain(self) -> None:
        while self._waiting or not self._calls.empty():
            while len(self._waiting) < TOGETHER and not self._calls.empty():
                if line := self._line(self._calls.get_nowait()):
                    self._waiting.append(line)
            self._lines.append(b"".join(self._waiting))  # to the system: from here on, only the machine can lose it
            self._count += len(self._waiting)
            self._waiting.clear()

    def _line(self, call: Call) -> bytes:
        """A call as a line of ASCII: other letters can end lines, too."""
        for texts in (True, False):
            try:
                return json.dumps(self._row(call, texts)).encode("ascii") + b"\n"
            except Exception:  # nested too deep, for one; nobody else's call must be lost over it
                logging.getLogger("driftline").warning("The call %s can't be logged whole.", call.id, exc_info=True)
                self._lose(int(texts))
        return b""

    def _row(self, call: Call, texts: bool) -> dict[str, Any]:
        route = call.share.route
        return {
            **{name: getattr(call, name) for name in OF_CALL},
            "team": call.key.team,
            "key": call.key.id,
            "case": route.case,
            "digest": route.digest,
            "role": call.share.role,
            "asked": self._logged(call.asked) if texts else "",
            "answered": self._logged(call.answered) if texts else "",
        }

    def _pack(self) -> None:
        self._lose(pack(self._lines.read(), self._folder))
        self._lines.truncate()
        self._count, self._since = 0, time.monotonic()

    def _lose(self, calls: int) -> None:
        self.lost += calls
        for _ in range(calls):
            self._dropped()


def pack(lines: Iterable[str], folder: Path) -> int:
    """Write lines as Parquet, one file a day of theirs, with no more than a few of them in memory at a time.

    Returns how many lines no row could be made of. Raises: Unavailable when the disk is full.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, schema, unusable = _rows_of(lines), _schema(), 0
    with contextlib.ExitStack() as files:
        writers: dict[str, pq.ParquetWriter] = {}
        while some := list(itertools.islice(rows, TOGETHER)):
            days: dict[str, list[dict[str, Any]]] = {}
            for row in some:
                days.setdefault(f"{datetime.fromtimestamp(row['at'], UTC):%Y-%m-%d}", []).append(row)
            for day, its in days.items():
                table = _table(its, schema)
                unusable += len(its) - table.num_rows
                if day not in writers:
                    temporary = files.enter_context(atomic_path(folder / f"day={day}" / f"{its[0]['id']}.parquet"))
                    writers[day] = files.enter_context(pq.ParquetWriter(temporary, schema))
                writers[day].write_table(table)
    pa.default_memory_pool().release_unused()
    return unusable


def _table(rows: list[dict[str, Any]], schema: Any) -> Any:
    """The rows as a table, without those that don't fit."""
    import pyarrow as pa

    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        usable = []
        for row in rows:
            with contextlib.suppress(pa.ArrowException, TypeError, ValueError, OverflowError):
                usable.append(pa.Table.from_pylist([row], schema=schema))
        return pa.concat_tables([schema.empty_table(), *usable])


@contextlib.contextmanager
def reading_log(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB in which the view `logged` has every call of the log; one that is just being packed may stand twice."""

    fresh = _table(list(_rows_of(_lines_in(folder))), _schema())
    packed = sorted(folder.glob("day=*/*.parquet"))  # after the lines: else what is packed in between stands nowhere
    with connect() as db:
        db.register("fresh", fresh)
        union = f"UNION ALL FROM {scan_parquet(*packed)}" if packed else ""
        db.execute(f"CREATE TEMP VIEW logged AS FROM fresh {union}")
        yield db


def _lines_in(folder: Path) -> Iterator[str]:
    """What is not packed yet; a gateway that ends meanwhile takes its lines with it, into Parquet."""
    for path in folder.glob("*.jsonl"):
        with contextlib.suppress(FileNotFoundError):
            yield from path.read_text(encoding="utf-8", errors="replace").splitlines()


def _rows_of(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The calls that lines tell of; the last line of a killed process may be half a one."""
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError, OverflowError, OSError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("id"), str) and isinstance(row.get("at"), int | float):
                datetime.fromtimestamp(row["at"], UTC)  # raises for what is no moment
                yield row


def recover_log(folder: Path) -> int:
    """Pack the lines that killed gateways have left; return how many no row could be made of.

    A file that can't be packed now stays for the next time.
    """
    unusable = 0
    for path in filter(Path.is_file, folder.glob("*.jsonl")):
        try:
            with path.open("r+", encoding="utf-8", errors="replace") as lines:
                fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
                unusable += pack(lines, folder)
                path.unlink()
        except (BlockingIOError, FileNotFoundError):
            continue  # its gateway lives, or another one has packed it
        except Exception:
            logging.getLogger("driftline").exception("The request log's %s waits to be packed.", path.name)
    return unusable


def _schema() -> Any:
    import pyarrow as pa

    kinds = {**dict.fromkeys(NUMBERS, pa.int64()), **dict.fromkeys(SECONDS, pa.float64())}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
