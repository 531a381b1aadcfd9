"""Read sources as they were delivered into monthly raw batches, and cut each to what was known at a moment."""

from __future__ import annotations

import contextlib
import importlib.util
import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.code_digest import cache_key
from tasks.core.config import Result
from tasks.core.duckdb import connect, quote_identifier, quote_literal, quote_path, scan_parquet
from tasks.core.errors import DataError
from tasks.core.files import atomic_path, file_digest, scratch_folder, write_text
from tasks.core.progress import mark_cached
from tasks.core.untrusted import MB, check_zip, reading_untrusted, require_disk_space
from tasks.data.config import Source

if TYPE_CHECKING:
    import duckdb

MOST_UNPACKED = 64 * 1024 * MB
STATIC = "all"  # the one batch of a source without time, or without rows


class Batch(Result):
    """One month of a source, as delivered."""

    name: str  # YYYY-MM, or "all"
    path: Path
    digest: str  # SHA-256 of the file
    first_known: datetime | None  # when its first row became known
    last_known: datetime | None  # when its last value became known: from then on the batch is complete


class Ingestion(Result):
    """What a source's folder under data/raw holds."""

    key: str
    columns: tuple[str, ...]
    batches: tuple[Batch, ...]
    empty: bool = False  # of a log: nobody has asked yet


def path_of_uri(uri: str, folder: Path) -> Path:
    """Where a file or folder lies that a URI names; relative paths count from the case's folder.

    Raises: DataError when the package is not there.
    """
    scheme, _, rest = uri.partition("://")
    if scheme != "package":
        return (folder / rest).resolve()
    name, _, inside = rest.partition("/")
    # found, not imported: some data packages can't be imported any more
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise DataError(f"The package {name} is not installed.", where=uri, todo=f"pip install {name}")
    return Path(next(iter(found.submodule_search_locations))) / inside


def locate(uri: str, folder: Path) -> Path:
    """The file that a source's URI names.

    Raises: DataError when the package or the file is not there.
    """
    path = path_of_uri(uri, folder)
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*") if p.is_file())[:12] if path.parent.is_dir() else []
        raise DataError(
            "A source file is missing.",
            where=uri,
            found=f"no file {path}",
            allowed=f"files there: {', '.join(near)}" if near else "",
            todo="Put the file there, or correct the uri in case.yaml.",
        )
    return path


def ingest(name: str, source: Source, folder: Path, raw: Path, log: Path | None = None) -> Ingestion:
    """Write a source month by month as Parquet under `raw`/NAME; a source that did not change is not read again.

    Of log://CASE, `log` is the file that the log was collected into; it alone may be empty, as nobody may have asked.
    Raises: DataError when the file can't be read, a column is missing or no row is there.
    """
    origin = log or locate(source.uri, folder)
    key = cache_key(__name__, [file_digest(origin), source.sql, source.time, source.known_at, source.late, source.key])
    marker = raw / name / "landing.json"
    with contextlib.suppress(OSError, ValueError):
        landing = Ingestion.model_validate_json(marker.read_text(encoding="utf-8"))
        if landing.key == key and all(batch.path.is_file() for batch in landing.batches):
            mark_cached()
            return landing
    with scratch_folder(raw / name) as work, connect() as db:
        _load(db, name, source, origin, Path(work))
        batches = tuple(_write_batches(db, name, source, raw / name))
        landing = Ingestion(key=key, columns=_columns(db), batches=batches, empty=_is_empty(db))
    for stray in set((raw / name).glob("*.parquet")) - {batch.path for batch in landing.batches}:
        stray.unlink()
    write_text(marker, landing.model_dump_json(indent=1))
    return landing


def filter_as_of(batch: Batch, source: Source, as_of: datetime, out: Path) -> Path | None:
    """The batch as it was known at `as_of`; None when nothing of it was known yet.

    That is the delivered file once it is complete, else a file `out` without what came later.
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
        _copy(db, f"SELECT * FROM known ORDER BY {_order(source)}", temporary)
    return out


def read_raw(db: duckdb.DuckDBPyConnection, name: str, origin: Path, work: Path) -> None:
    """Have a file as the table or view `raw`; one in a .zip is unpacked into `work`.

    Raises: DataError when it is of a kind that can't be read, duckdb.Error when it can't be.
    """
    if origin.suffix == ".zip":
        allowed = f"a .zip of one file, without a password, that unpacks to {MOST_UNPACKED // MB:,} MB at most"
        with (
            reading_untrusted(f"Source {name} can't be unpacked.", origin, allowed=allowed),
            zipfile.ZipFile(origin) as archive,
        ):
            check_zip(archive, origin.stat().st_size, MOST_UNPACKED)
            first = archive.infolist()[0]
            require_disk_space(work, first.file_size)
            origin = Path(archive.extract(first, work))
    read = {
        # all rows decide on the types; as a view, they would be looked at anew on each use
        ".csv": "CREATE TABLE raw AS FROM read_csv($path, nullstr = ['NA', ''], sample_size = -1, $plain)",
        ".parquet": f"CREATE VIEW raw AS FROM {scan_parquet(origin)}",
        ".jsonl": "CREATE VIEW raw AS FROM read_json($path, $plain)",
        ".json": "CREATE VIEW raw AS FROM read_json($path, $plain)",
    }.get(origin.suffix)
    if read is None:
        raise DataError(
            f"Source {name} is of a kind that can't be read.",
            where=str(origin),
            allowed=".csv, .parquet, .json, .jsonl, or one of them in a .zip",
        )
    # a folder year=2024 above it makes no column
    db.execute(read.replace("$path", quote_path(origin)).replace("$plain", "hive_partitioning = false"))


def _load(db: duckdb.DuckDBPyConnection, name: str, source: Source, origin: Path, work: Path) -> None:
    import duckdb

    try:
        read_raw(db, name, origin, work)
        db.execute(f"CREATE TABLE landed AS {source.sql}")
    except duckdb.Error as error:
        raise DataError(
            f"Source {name} could not be read.",
            where=f"{source.uri} through data.sources.{name}.sql",
            found=str(error).strip().splitlines()[0],
            allowed=_has(db),
            todo="Correct the file, or the SQL that makes the table.",
        ) from error
    columns = _columns(db)
    times = [source.time, source.known_at, *source.late]
    wanted = [*source.key, *(t for t in times if t), *(c for group in source.late.values() for c in group)]
    if missing := [column for column in wanted if column not in columns]:
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
        path = _copy_whole(db, f"SELECT * FROM landed ORDER BY {_order(source)}", out / f"{STATIC}.parquet")
        yield Batch(name=STATIC, path=path, digest=file_digest(path), first_known=None, last_known=None)
        return
    time = quote_identifier(source.time)
    timeless = db.execute(f"SELECT count(*) FROM landed WHERE {time} IS NULL").fetchall()[0][0]
    if timeless:
        raise DataError(
            f"Source {name} has rows without a time.",
            where=f"{source.uri}, column {source.time}",
            found=f"{timeless:,} rows",
            todo="Give every row its time, or leave such rows out in the source's SQL.",
        )
    known = quote_identifier(source.known_at or source.time)
    # a value that never comes (the departure of a cancelled flight) keeps no batch open: greatest() skips nulls
    latest = ", ".join([known, *map(quote_identifier, source.late)])
    months = db.execute(
        f"SELECT strftime({time}, '%Y-%m') AS month, min({known}), max(greatest({latest})) "
        "FROM landed GROUP BY month ORDER BY month"
    ).fetchall()
    for month, first, last in months:
        year, number = map(int, month.split("-"))
        after = f"{year + number // 12:04}-{number % 12 + 1:02}-01"
        # a range, unlike the name of the month, skips the blocks of rows that hold none of it
        within = f"{time} >= '{month}-01' AND {time} < '{after}'"
        select = f"SELECT * FROM landed WHERE {within} ORDER BY {_order(source)}"
        path = _copy_whole(db, select, out / f"{month}.parquet")
        yield Batch(name=month, path=path, digest=file_digest(path), first_known=first, last_known=last)


def _is_empty(db: duckdb.DuckDBPyConnection) -> bool:
    return not db.execute("SELECT count(*) FROM landed").fetchall()[0][0]


def _order(source: Source) -> str:
    return ", ".join(map(quote_identifier, ([source.time] if source.time else []) + list(source.key)))


def _copy_whole(db: duckdb.DuckDBPyConnection, select: str, path: Path) -> Path:
    with atomic_path(path) as temporary:
        _copy(db, select, temporary)
    return path


def _copy(db: duckdb.DuckDBPyConnection, select: str, path: Path) -> None:
    db.execute(f"COPY ({select}) TO {quote_literal(path)} (FORMAT parquet)")


def _columns(db: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
    return tuple(row[0] for row in db.execute("DESCRIBE landed").fetchall())


def _has(db: duckdb.DuckDBPyConnection) -> str:
    import duckdb

    try:
        return "columns of raw: " + ", ".join(row[0] for row in db.execute("DESCRIBE raw").fetchall())
    except duckdb.Error:
        return ""
