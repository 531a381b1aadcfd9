"""Ingests sources into monthly raw batches, and filters each batch by what was known at a moment."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.code_digest import cache_key
from tasks.core.config import Result
from tasks.core.duckdb import connect, quote_identifier, scan_parquet
from tasks.core.errors import DataError
from tasks.core.files import atomic_path, file_digest, scratch_folder, write_text
from tasks.core.progress import mark_cached
from tasks.data.config import Source
from tasks.data.origins.fetch import fetch_source
from tasks.data.origins.results import Fetched
from tasks.data.parquet import copy_to_parquet
from tasks.data.reading.cells import Typing
from tasks.data.reading.files import read_files
from tasks.data.reading.report import ReadReport
from tasks.data.reading.scan import of_type
from tasks.data.retracted import drop_retracted, read_retracted

if TYPE_CHECKING:
    import duckdb

MOMENT = "TIMESTAMP WITH TIME ZONE"
REJECTED = "rejected.parquet"
STATIC = "all"  # the one batch of a source without time, or without rows


class Batch(Result):
    """One month of a source, as delivered."""

    name: str  # YYYY-MM, or "all"
    path: Path
    digest: str  # SHA-256 of the file
    first_known: datetime | None  # when its first row became known
    last_known: datetime | None  # when its last value became known: from then on the batch is complete


class Ingestion(Result):
    """The contents of a source's folder under data/raw."""

    key: str
    columns: tuple[str, ...]
    batches: tuple[Batch, ...]
    empty: bool = False  # a log without requests
    fetched: Fetched | None = None  # where its files came from; None: from a log
    report: ReadReport
    rejected: Path | None = None  # Parquet of the rejected records: file, line, column, text, reason

    @property
    def summary(self) -> str:
        """Batches, what was not read or stands for a missing value, and what changed at the source."""
        changes = self.fetched.changes if self.fetched else ""
        return "; ".join([f"{len(self.batches)} batches", *self.report.notes(), *([changes] if changes else [])])


def ingest(
    name: str, source: Source, folder: Path, *, raw: Path, log: Path | None = None, verbatim: bool = False
) -> Ingestion:
    """Write a source month by month as Parquet under `raw`/NAME; an unchanged source is not read again.

    Rejected records are written beside the batches. For log://CASE, `log` is the file with the collected log; only a
    log may be empty. verbatim: the source holds instruction pairs, whose texts have no types.
    Raises: DataError when the file can't be read, a column is missing or there is no row.
    """
    if log:
        fetched, paths, digest = None, [log], file_digest(log)
    else:
        fetched = fetch_source(source, folder, raw / name / "fetched")
        paths, digest = fetched.paths, fetched.digest
    reading = source.model_dump(mode="json", include={"columns", "missing", "format", "tolerance"})
    times = [source.time, source.known_at, source.late, source.key]
    retracted = read_retracted(raw)
    more = [[row.model_dump(mode="json", exclude={"snapshots"}) for row in retracted]] if retracted else []
    key = cache_key(__name__, [digest, source.sql, times, reading, verbatim, *more])
    marker = raw / name / "landing.json"
    with contextlib.suppress(OSError, ValueError):
        existing = Ingestion.model_validate_json(marker.read_text(encoding="utf-8"))
        if existing.key == key and all(batch.path.is_file() for batch in existing.batches):
            mark_cached()
            return existing.model_copy(update={"fetched": fetched})
    with scratch_folder(raw / name) as work, connect() as db:
        report = _load(db, name, source, paths=paths, work=Path(work), verbatim=verbatim)
        drop_retracted(db, "ingested", retracted)
        batches = tuple(_write_batches(db, name, source, raw / name))
        rejected = _copy_atomically(db, "FROM rejected", raw / name / REJECTED) if report.rejected else None
        ingestion = Ingestion(
            key=key,
            columns=_columns(db),
            batches=batches,
            empty=_is_empty(db),
            fetched=fetched,
            report=report,
            rejected=rejected,
        )
    for stale in set((raw / name).glob("*.parquet")) - {batch.path for batch in batches} - {rejected}:
        stale.unlink()
    write_text(marker, ingestion.model_dump_json(indent=1))
    return ingestion


def filter_as_of(batch: Batch, source: Source, as_of: datetime, out: Path) -> Path | None:
    """The batch as known at `as_of`; None when none of its rows was known yet.

    That is the delivered file once the batch is complete, else a file `out` without later rows and values.
    """
    if batch.first_known is None or (batch.last_known and batch.last_known <= as_of):
        return batch.path
    if batch.first_known > as_of:
        return None
    known = quote_identifier(str(source.known_at or source.time))
    late = [(quote_identifier(at), quote_identifier(name)) for at, names in source.late.items() for name in names]
    masks = ", ".join(f"CASE WHEN {moment} <= $as_of THEN {column} END AS {column}" for moment, column in late)
    columns = f"* REPLACE ({masks})" if masks else "*"
    with atomic_path(out) as temporary, connect() as db:
        db.execute(
            f"CREATE TABLE known AS SELECT {columns} FROM {scan_parquet(batch.path)} WHERE {known} <= $as_of",
            {"as_of": as_of},
        )
        copy_to_parquet(db, f"SELECT * FROM known ORDER BY {_order(source)}", temporary)
    return out


def _load(
    db: duckdb.DuckDBPyConnection, name: str, source: Source, *, paths: Sequence[Path], work: Path, verbatim: bool
) -> ReadReport:
    import duckdb

    report = read_files(db, name, source, files=paths, work=work, verbatim=verbatim)
    try:
        db.execute(f"CREATE TABLE ingested AS {source.sql}")
    except duckdb.Error as error:
        raise DataError(
            f"Source {name} could not be read.",
            where=f"{source.uri} through data.sources.{name}.sql",
            found=str(error).strip().splitlines()[0],
            allowed=_raw_columns(db),
            todo="Correct the file, or the source's SQL.",
        ) from error
    columns = _columns(db)
    times = [source.time, source.known_at, *source.late]
    required = [*source.key, *(t for t in times if t), *(c for group in source.late.values() for c in group)]
    if missing := [column for column in required if column not in columns]:
        raise DataError(
            f"Source {name} lacks {', '.join(missing)}.",
            where=source.uri,
            found=", ".join(columns),
            todo="Add the column in the source's SQL, or correct key, time, known_at or late in case.yaml.",
        )
    if not source.log and _is_empty(db):
        raise DataError(f"Source {name} is empty.", where=source.uri, found="0 rows", todo="Deliver the file again.")
    for column in dict.fromkeys(time for time in times if time):
        _make_moment(db, name, source, column)
    return report


def _make_moment(db: duckdb.DuckDBPyConnection, name: str, source: Source, column: str) -> None:
    """Make a column of moments: a date is its midnight, and without a zone it is in UTC.

    Raises: DataError for another value.
    """
    quoted = quote_identifier(column)
    kind = db.execute(f"SELECT any_value(typeof({quoted})) FROM ingested").fetchall()[0][0]
    if kind in (None, MOMENT):
        return
    value = Typing(()).value(quoted, of_type("timestamp")) if kind == "VARCHAR" else f"TRY_CAST({quoted} AS {MOMENT})"
    if kind not in ("VARCHAR", "DATE") and not kind.startswith("TIMESTAMP"):
        value = f"CAST(NULL AS {MOMENT})"
    bad = f"FROM ingested WHERE {quoted} IS NOT NULL AND {value} IS NULL"
    count, example = db.execute(f"SELECT count(*), any_value({quoted}::VARCHAR) {bad}").fetchall()[0]
    if count:
        raise DataError(
            f"Column {column} of source {name} holds no times.",
            where=f"time, known_at or late of data.sources.{name}",
            found=f"{count:,} values such as {example!r}, of type {kind}",
            allowed="dates and times in ISO form",
            todo=f"Declare its format: columns: {{{column}: {{type: timestamp, format: '%d.%m.%Y %H:%M'}}}}.",
        )
    db.execute(f"ALTER TABLE ingested ALTER COLUMN {quoted} SET DATA TYPE {MOMENT} USING {value}")


def _write_batches(db: duckdb.DuckDBPyConnection, name: str, source: Source, out: Path) -> Iterator[Batch]:
    if source.time is None or _is_empty(db):
        path = _copy_atomically(db, f"SELECT * FROM ingested ORDER BY {_order(source)}", out / f"{STATIC}.parquet")
        yield Batch(name=STATIC, path=path, digest=file_digest(path), first_known=None, last_known=None)
        return
    time = quote_identifier(source.time)
    nulls = db.execute(f"SELECT count(*) FROM ingested WHERE {time} IS NULL").fetchall()[0][0]
    if nulls:
        raise DataError(
            f"Source {name} has rows without a time.",
            where=f"{source.uri}, column {source.time}",
            found=f"{nulls:,} rows",
            todo="Set the time of every row, or exclude such rows in the source's SQL.",
        )
    known = quote_identifier(source.known_at or source.time)
    # a value that never arrives (the departure of a cancelled flight) leaves no batch open: greatest() skips nulls
    latest = ", ".join([known, *map(quote_identifier, source.late)])
    months = db.execute(
        f"SELECT strftime({time}, '%Y-%m') AS month, min({known}), max(greatest({latest})) "
        "FROM ingested GROUP BY month ORDER BY month"
    ).fetchall()
    for month, first, last in months:
        year, number = map(int, month.split("-"))
        after = f"{year + number // 12:04}-{number % 12 + 1:02}-01"
        # with a range, unlike with the name of the month, DuckDB skips blocks of rows
        within = f"{time} >= '{month}-01' AND {time} < '{after}'"
        select = f"SELECT * FROM ingested WHERE {within} ORDER BY {_order(source)}"
        path = _copy_atomically(db, select, out / f"{month}.parquet")
        yield Batch(name=month, path=path, digest=file_digest(path), first_known=first, last_known=last)


def _is_empty(db: duckdb.DuckDBPyConnection) -> bool:
    return not db.execute("SELECT count(*) FROM ingested").fetchall()[0][0]


def _order(source: Source) -> str:
    return ", ".join(map(quote_identifier, ([source.time] if source.time else []) + list(source.key)))


def _copy_atomically(db: duckdb.DuckDBPyConnection, select: str, path: Path) -> Path:
    with atomic_path(path) as temporary:
        copy_to_parquet(db, select, temporary)
    return path


def _columns(db: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
    return tuple(row[0] for row in db.execute("DESCRIBE ingested").fetchall())


def _raw_columns(db: duckdb.DuckDBPyConnection) -> str:
    import duckdb

    try:
        return "columns of raw: " + ", ".join(row[0] for row in db.execute("DESCRIBE raw").fetchall())
    except duckdb.Error:
        return ""
