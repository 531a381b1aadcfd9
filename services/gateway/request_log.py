"""The request log: requests and responses in Parquet by day, written in the background."""

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

MAX_QUEUED = 20_000  # calls; beyond, calls are lost to the log
FLUSH_SECONDS = 0.02  # seconds between writes; a kill loses the calls of this time
BATCH = 5_000  # calls of a Parquet file, or
BATCH_SECONDS = 60.0  # seconds after which a smaller file is written
MAX_RETRY_SECONDS = 5.0  # seconds between attempts while the disk is full
CHUNK = 200  # calls in memory while a file is written
NEAR_SECONDS = 900.0  # a file that begins within this time of a call probably has it
NUMBERS = ("status", "retries", "tokens_in", "tokens_cached", "tokens_out", "price")
SECONDS = ("at", "engine_seconds", "seconds")
CALL_FIELDS = ("id", "interface", "state", *NUMBERS, *SECONDS)
COLUMNS = (*CALL_FIELDS, "team", "key", "case", "digest", "role", "request", "response", "retrieval", "guard")


class RequestLog:
    """Calls are appended to a file of lines, and packed from there into `day=.../` in batches, even after a kill.

    While the disk is full, up to MAX_QUEUED calls wait in memory; writing resumes when there is space.
    """

    def __init__(self, folder: Path, worker: str, redact: Callable[[bytes], str], on_lost: Callable[[], None]) -> None:
        """`redact` returns what may be stored of a text; `on_lost` is called for each call that is lost."""
        self.lost = 0  # calls of this process that the log lacks, or whose texts it lacks
        self._folder, self._redact, self._on_lost = folder, redact, on_lost
        self._calls: queue.Queue[Call] = queue.Queue(MAX_QUEUED)
        self._lines = LinesFile(folder / f"{worker}.jsonl")
        self._pending: list[bytes] = []  # lines to write next
        self._count, self._since, self._recover_at = 0, time.monotonic(), 0.0
        self.loop = ThreadLoop("log", self._write, interval=FLUSH_SECONDS, max_backoff=MAX_RETRY_SECONDS).start()

    def put(self, call: Call) -> None:
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._count_lost(1)

    def close(self) -> None:
        """Write the rest; what can't be written is counted as lost."""
        self.loop.stop()
        try:
            self._drain()
            self._pack()
            self._lines.remove()
        except Exception:  # the next gateway recovers the lines in the file
            logging.getLogger("driftline").exception("The rest of the request log can't be written.")
            self._count_lost(len(self._pending) + self._calls.qsize())
            self._lines.close()

    def _write(self) -> None:
        """Raises: OSError, Unavailable when the disk is full."""
        import pyarrow.json  # the memory of both from the start, not when the first batch is packed
        import pyarrow.parquet  # noqa: F401

        self._drain()
        if time.monotonic() >= self._recover_at:
            self._recover_at = time.monotonic() + BATCH_SECONDS
            self._count_lost(recover_log(self._folder))
        if self._count >= BATCH or (self._count and time.monotonic() - self._since > BATCH_SECONDS):
            self._pack()

    def _drain(self) -> None:
        while self._pending or not self._calls.empty():
            while len(self._pending) < CHUNK and not self._calls.empty():
                if line := self._line(self._calls.get_nowait()):
                    self._pending.append(line)
            self._lines.append(b"".join(self._pending))  # with the operating system now: a killed process loses nothing
            self._count += len(self._pending)
            self._pending.clear()

    def _line(self, call: Call) -> bytes:
        """A call as a line of ASCII: other characters can end lines, too."""
        for texts in (True, False):
            try:
                return json.dumps(self._row(call, texts)).encode("ascii") + b"\n"
            except Exception:  # for example, nested too deep; it must not affect other calls
                logging.getLogger("driftline").warning("The texts of call %s can't be logged.", call.id, exc_info=True)
                self._count_lost(int(texts))
        return b""

    def _row(self, call: Call, texts: bool) -> dict[str, Any]:
        route = call.share.route
        return {
            **{name: getattr(call, name) for name in CALL_FIELDS},
            "team": call.key.team,
            "key": call.key.id,
            "case": route.case,
            "digest": route.digest,
            "role": call.share.role,
            "request": self._redact(call.request_body) if texts else "",
            "response": self._redact(call.response_body) if texts else "",
            "retrieval": call.retrieval.model_dump_json() if call.retrieval else None,
            "guard": json.dumps(guard) if (guard := call.guard.json()) else None,
        }

    def _pack(self) -> None:
        self._count_lost(pack(self._lines.read(), self._folder))
        self._lines.truncate()
        self._count, self._since = 0, time.monotonic()

    def _count_lost(self, calls: int) -> None:
        self.lost += calls
        for _ in range(calls):
            self._on_lost()


def pack(lines: Iterable[str], folder: Path) -> int:
    """Write lines as Parquet, one file for each day, with CHUNK rows in memory at a time.

    Returns the number of rows that fit no column. Raises: Unavailable when the disk is full.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, schema, unusable = _rows_of(lines), _schema(), 0
    with contextlib.ExitStack() as files:
        writers: dict[str, pq.ParquetWriter] = {}
        while chunk := list(itertools.islice(rows, CHUNK)):
            days: dict[str, list[dict[str, Any]]] = {}
            for row in chunk:
                days.setdefault(f"{datetime.fromtimestamp(row['at'], UTC):%Y-%m-%d}", []).append(row)
            for day, day_rows in days.items():
                table = _table(day_rows, schema)
                unusable += len(day_rows) - table.num_rows
                if day not in writers:
                    temporary = files.enter_context(atomic_path(_packed_path(folder / f"day={day}", day_rows[0])))
                    writers[day] = files.enter_context(pq.ParquetWriter(temporary, schema))
                writers[day].write_table(table)
    pa.default_memory_pool().release_unused()
    return unusable


def _table(rows: list[dict[str, Any]], schema: Any) -> Any:
    """The rows as a table, without those that don't match the schema."""
    import pyarrow as pa

    try:
        return _parse(rows, schema)
    except pa.ArrowException:
        usable = []
        for row in rows:
            with contextlib.suppress(pa.ArrowException):
                usable.append(_parse([row], schema))
        return pa.concat_tables([schema.empty_table(), *usable])


def _parse(rows: list[dict[str, Any]], schema: Any) -> Any:
    """The rows through pyarrow's JSON reader: `Table.from_pylist` would import pandas into the gateway."""
    import pyarrow as pa
    import pyarrow.json as pj

    if not rows:
        return schema.empty_table()
    lines = "\n".join(map(json.dumps, rows)).encode("ascii")
    return pj.read_json(
        pa.BufferReader(lines),
        read_options=pj.ReadOptions(use_threads=False, block_size=len(lines) + 1),
        parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    ).select(schema.names)


@contextlib.contextmanager
def reading_log(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a DuckDB whose view `logged` has every call; one that is being packed may appear twice."""
    fresh = _table(list(_rows_of(_lines_in(folder))), _schema())
    # after the lines: otherwise calls that are packed in between would be missing
    packed = sorted(folder.glob("day=*/*.parquet"))
    with connect() as db:
        db.register("fresh", fresh)
        union = f"UNION ALL BY NAME FROM {scan_parquet(*packed, by_name=True)}" if packed else ""
        db.execute(f"CREATE TEMP VIEW logged AS FROM fresh {union}")
        yield db


def _lines_in(folder: Path) -> Iterator[str]:
    """The lines that are not packed yet; a gateway that ends now packs its own."""
    for path in folder.glob("*.jsonl"):
        with contextlib.suppress(FileNotFoundError):
            yield from path.read_text(encoding="utf-8", errors="replace").splitlines()


def _rows_of(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The calls in the lines; the last line of a killed process may be incomplete."""
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError, OverflowError, OSError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("id"), str) and isinstance(row.get("at"), int | float):
                datetime.fromtimestamp(row["at"], UTC)  # raises for an invalid time
                yield row


def recover_log(folder: Path) -> int:
    """Pack the lines that killed gateways left; return the number of unusable rows.

    A file that can't be packed now is tried again later.
    """
    unusable = 0
    for path in filter(Path.is_file, folder.glob("*.jsonl")):
        try:
            with path.open("r+", encoding="utf-8", errors="replace") as lines:
                fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
                unusable += pack(lines, folder)
                path.unlink()
        except (BlockingIOError, FileNotFoundError):
            continue  # its gateway is running, or another one has packed it
        except Exception:
            logging.getLogger("driftline").exception("The request log's %s could not be packed yet.", path.name)
    return unusable


def _schema() -> Any:
    import pyarrow as pa

    kinds = {**dict.fromkeys(NUMBERS, pa.int64()), **dict.fromkeys(SECONDS, pa.float64())}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])


def find_call(folder: Path, id_: str, at: float) -> dict[str, Any] | None:
    """The logged call of this id, which began at this second; None when the log lacks it."""
    mark = json.dumps(id_)
    for row in _rows_of(line for line in _lines_in(folder) if mark in line):
        if row["id"] == id_:
            return row
    # after the lines: otherwise a call that is packed in between would be missing
    packed = sorted(folder.glob(f"day={datetime.fromtimestamp(at, UTC):%Y-%m-%d}/*.parquet"))
    near = [path for path in packed if abs(_start_of(path) - at) < NEAR_SECONDS]
    return _find_in(near, id_, at) or _find_in([path for path in packed if path not in near], id_, at)


def _find_in(packed: list[Path], id_: str, at: float) -> dict[str, Any] | None:
    if not packed:
        return None
    with connect() as db:
        # the time narrows the search to few groups of rows, whose ids are in no order
        where = '"at" BETWEEN $at - 1 AND $at + 1 AND id = $id'
        found = db.execute(f"FROM {scan_parquet(*packed, by_name=True)} WHERE {where} LIMIT 1", {"at": at, "id": id_})
        names = [name for name, *_ in found.description]
        row = found.fetchone()
    return dict(zip(names, row, strict=True)) if row else None


def _packed_path(folder: Path, first: dict[str, Any]) -> Path:
    """The name of a file begins with the second of its first row, by which one call is found among many files."""
    return folder / f"{int(first['at'])}-{first['id']}.parquet"


def _start_of(path: Path) -> float:
    """The second of a file's first row; 0 for files of earlier versions, which don't name it."""
    second = path.name.partition("-")[0]
    return float(second) if second.isdigit() else 0.0
