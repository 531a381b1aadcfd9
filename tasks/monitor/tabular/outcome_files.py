"""Outcomes that arrive as a file: a key and what turned out to be true, stored for monitoring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.duckdb import connect, quote_identifier
from tasks.core.errors import DataError
from tasks.core.files import atomic_path, file_digest, scratch_folder
from tasks.data.config import Source
from tasks.data.parquet import copy_to_parquet
from tasks.data.reading.files import read_files
from tasks.data.reading.report import ReadReport, RejectedRow
from tasks.features.config import free_name

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

FOLDER = "outcomes"  # beside the predictions of a case
ID = "example_id"
MOMENT = "%Y-%m-%dT%H%M%S%fZ"  # in the name of a stored file: when it arrived


@dataclass(frozen=True)
class OutcomeFile:
    """A file with the target of a case, and the key of its source or example_id."""

    path: Path
    source: Source
    target: str


@dataclass(frozen=True)
class StoredOutcomes:
    """What became of a file: its outcomes by example_id, and the records that could not be read."""

    values: pd.Series
    rejected: tuple[RejectedRow, ...]


def store_outcomes(case: str, file: OutcomeFile, at: datetime, out: Path) -> StoredOutcomes:
    """Store the outcomes of a file; rows whose outcome is empty are left out.

    Raises: DataError when the file lacks a column, has no outcome, or two different ones for a key.
    """
    folder = out / case / FOLDER
    with scratch_folder(folder) as work, connect() as db:
        report = _read(db, file, Path(work))
        columns = [name for name, *_ in db.execute("DESCRIBE named").fetchall()]
        identity, target = _identity(columns, file), quote_identifier(_target(columns, file))
        db.execute(
            f"CREATE TABLE outcomes AS SELECT DISTINCT {identity} AS {ID}, {target} AS outcome "
            f"FROM named WHERE {target} IS NOT NULL AND {identity} IS NOT NULL"
        )
        _check(db, file)
        path = folder / f"{at.astimezone(UTC):{MOMENT}}-{file_digest(file.path)[:12]}.parquet"
        with atomic_path(path) as temporary:
            copy_to_parquet(db, f"SELECT * FROM outcomes ORDER BY {ID}", temporary)
        values = db.execute(f"SELECT {ID}, outcome FROM outcomes ORDER BY {ID}").df().set_index(ID)["outcome"]
    return StoredOutcomes(values, report.first)


def read_outcomes(out: Path, case: str, as_of: datetime) -> pd.Series:
    """The outcomes that files brought until a moment, by example_id; of several, the newest."""
    import pandas as pd

    latest = f"{as_of.astimezone(UTC):{MOMENT}}~"
    files = sorted(file for file in (out / case / FOLDER).glob("*.parquet") if file.name <= latest)
    if not files:
        return pd.Series(dtype=object)
    rows = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    return rows.drop_duplicates(ID, keep="last").set_index(ID)["outcome"]


def _read(db: duckdb.DuckDBPyConnection, file: OutcomeFile, work: Path) -> ReadReport:
    """Create the table `named` of the file's rows, with the types that the case declares of them."""
    import duckdb

    source = file.source.model_copy(update={"uri": f"file://{file.path}", "columns": {}, "tolerance": 1.0})
    with connect() as own:
        names = read_files(own, "outcomes", source, files=[file.path], work=_folder(work, "names")).columns
    declared = {name: column for name, column in file.source.columns.items() if name in names}
    extra = {name: names[name] for name in (ID, *file.source.key) if name in names and name not in declared}
    columns = declared and {**declared, **extra}
    source = source.model_copy(update={"columns": columns})
    report = read_files(db, "outcomes", source, files=[file.path], work=_folder(work, "typed"))
    sql = "SELECT * FROM raw"
    if ID not in names and not {*file.source.key} <= {*names}:
        sql = file.source.sql  # it may make the key of the columns
    try:
        db.execute(f"CREATE TABLE named AS {sql}")
    except duckdb.Error:  # it needs columns that the file lacks; the next check names the key's
        db.execute("CREATE TABLE named AS SELECT * FROM raw")
    return report


def _folder(work: Path, name: str) -> Path:
    (work / name).mkdir()
    return work / name


def _target(columns: Sequence[str], file: OutcomeFile) -> str:
    """The file's column of the target, which has another name in examples where the platform has one of that name."""
    return next((name for name in columns if free_name(name) == file.target), file.target)


def _identity(columns: Sequence[str], file: OutcomeFile) -> str:
    """SQL for the id of a row: as `driftline new` forms it from the key."""
    named = [ID] if ID in columns else list(file.source.key)
    if missing := [name for name in (*named, _target(columns, file)) if name not in columns]:
        raise DataError(
            f"The file of outcomes lacks {', '.join(missing)}.",
            where=str(file.path),
            found=", ".join(columns),
            allowed=f"{' and '.join(file.source.key) or ID} (or {ID}), and {file.target}",
            todo="Write the key of each row and what turned out to be true into one file.",
        )
    texts = [f"{quote_identifier(name)}::VARCHAR" for name in named]
    return texts[0] if len(texts) == 1 else f"concat_ws('/', {', '.join(texts)})"


def _check(db: duckdb.DuckDBPyConnection, file: OutcomeFile) -> None:
    rows, ids = db.execute(f"SELECT count(*), count(DISTINCT {ID}) FROM outcomes").fetchall()[0]
    if not rows:
        raise DataError("The file has no outcome.", where=f"{file.path}, column {file.target}", found="0 rows with one")
    if rows != ids:
        twice = db.execute(f"SELECT {ID} FROM outcomes GROUP BY {ID} HAVING count(*) > 1 ORDER BY 1 LIMIT 3").fetchall()
        raise DataError(
            "A key has two different outcomes.",
            where=str(file.path),
            found=f"{rows - ids:,} such keys, for instance {', '.join(str(name) for (name,) in twice)}",
            allowed="one outcome a key",
            todo="Leave the right one in the file.",
        )
