"""Ingests sources into monthly raw batches, and filters each batch by what was known at a moment."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.code_digest import cache_key
from tasks.core.config import Result
from tasks.core.duckdb import connect, quote_identifier, quote_path, scan_parquet
from tasks.core.errors import DataError
from tasks.core.files import atomic_path, file_digest, scratch_folder, write_text
from tasks.core.progress import mark_cached
from tasks.core.untrusted import MB, check_zip, reading_untrusted, require_disk_space
from tasks.data.config import Source
from tasks.data.origins.fetch import fetch_source
from tasks.data.origins.results import Fetched
from tasks.data.parquet import copy_to_parquet

if TYPE_CHECKING:
    import duckdb

MAX_UNPACKED = 64 * 1024 * MB
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

    @property
    def summary(self) -> str:
        """Batches, and what changed at the source."""
        changes = self.fetched.changes if self.fetched else ""
        return f"{len(self.batches)} batches" + (f"; {changes}" if changes else "")


def ingest(name: str, source: Source, folder: Path, *, raw: Path, log: Path | None = None) -> Ingestion:
    """Write a source month by month as Parquet under `raw`/NAME; an unchanged source is not read again.

    For log://CASE, `log` is the file with the collected log; only a log may be empty.
    Raises: DataError when the file can't be read, a column is missing or there is no row.
    """
    if log:
        fetched, paths, digest = None, [log], file_digest(log)
    else:
        fetched = fetch_source(source, folder, raw / name / "fetched")
        paths, digest = fetched.paths, fetched.digest
    key = cache_key(__name__, [digest, source.sql, source.time, source.known_at, source.late, source.key])
    marker = raw / name / "landing.json"
    with contextlib.suppress(OSError, ValueError):
        existing = Ingestion.model_validate_json(marker.read_text(encoding="utf-8"))
        if existing.key == key and all(batch.path.is_file() for batch in existing.batches):
            mark_cached()
            return existing.model_copy(update={"fetched": fetched})
    with scratch_folder(raw / name) as work, connect() as db:
        _load(db, name, source, paths, Path(work))
        batches = tuple(_write_batches(db, name, source, raw / name))
        ingestion = Ingestion(key=key, columns=_columns(db), batches=batches, empty=_is_empty(db), fetched=fetched)
    for stale in set((raw / name).glob("*.parquet")) - {batch.path for batch in ingestion.batches}:
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


def read_raw(db: duckdb.DuckDBPyConnection, name: str, origin: Path, work: Path) -> None:
    """Create the table or view `raw` of a file; a file in a .zip is unpacked into `work`.

    Raises: DataError for a file of an unsupported kind, duckdb.Error for one that can't be read.
    """
    if origin.suffix == ".zip":
        allowed = f"a .zip of one file, without a password, that unpacks to {MAX_UNPACKED // MB:,} MB at most"
        with (
            reading_untrusted(f"Source {name} can't be unpacked.", origin, allowed=allowed),
            zipfile.ZipFile(origin) as archive,
        ):
            check_zip(archive, origin.stat().st_size, MAX_UNPACKED)
            first = archive.infolist()[0]
            require_disk_space(work, first.file_size)
            origin = Path(archive.extract(first, work))
    read = {
        # the types are inferred from all rows: a view would infer them again on each use
        ".csv": "CREATE TABLE raw AS FROM read_csv($path, nullstr = ['NA', ''], sample_size = -1, $plain)",
        ".parquet": f"CREATE VIEW raw AS FROM {scan_parquet(origin)}",
        ".jsonl": "CREATE VIEW raw AS FROM read_json($path, $plain)",
        ".json": "CREATE VIEW raw AS FROM read_json($path, $plain)",
    }.get(origin.suffix)
    if read is None:
        raise DataError(
            f"Source {name} is a file of an unsupported kind.",
            where=str(origin),
            allowed=".csv, .parquet, .json, .jsonl, or one of them in a .zip",
        )
    # a folder year=2024 in its path adds no column
    db.execute(read.replace("$path", quote_path(origin)).replace("$plain", "hive_partitioning = false"))


def _load(db: duckdb.DuckDBPyConnection, name: str, source: Source, paths: Sequence[Path], work: Path) -> None:
    import duckdb

    try:
        tables = []
        for number, path in enumerate(paths):
            read_raw(db, name, path, work)
            db.execute(f"CREATE TABLE raw_{number} AS FROM raw; DROP {'VIEW' if _is_view(db) else 'TABLE'} raw")
            tables.append(f"FROM raw_{number}")
        db.execute(f"CREATE VIEW raw AS {' UNION ALL BY NAME '.join(tables)}")
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


def _is_view(db: duckdb.DuckDBPyConnection) -> bool:
    return bool(db.execute("SELECT 1 FROM duckdb_views() WHERE view_name = 'raw'").fetchall())


def _columns(db: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
    return tuple(row[0] for row in db.execute("DESCRIBE ingested").fetchall())


def _raw_columns(db: duckdb.DuckDBPyConnection) -> str:
    import duckdb

    try:
        return "columns of raw: " + ", ".join(row[0] for row in db.execute("DESCRIBE raw").fetchall())
    except duckdb.Error:
        return ""
