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
from tasks.data.parquet import copy_to_parquet
from tasks.data.sources import read_raw

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

FOLDER = "outcomes"  # beside the predictions of a case
ID = "example_id"
MOMENT = "%Y-%m-%dT%H%M%S%fZ"  # in the name of a stored file: when it arrived


@dataclass(frozen=True)
class OutcomeFile:
    """A file with the case's key, or example_id, and its target."""

    path: Path
    keys: Sequence[str]
    target: str


def store_outcomes(case: str, file: OutcomeFile, at: datetime, out: Path) -> pd.Series:
    """Store the outcomes of a file, and return them by example_id; rows whose outcome is empty are left out.

    Raises: DataError when the file lacks a column, has no outcome, or two different ones for a key.
    """
    folder = out / case / FOLDER
    with scratch_folder(folder) as work, connect() as db:
        read_raw(db, "outcomes", file.path, Path(work))
        identity = _identity(db, file)
        db.execute(
            f"CREATE TABLE outcomes AS SELECT DISTINCT {identity} AS {ID}, {quote_identifier(file.target)} AS outcome "
            f"FROM raw WHERE {quote_identifier(file.target)} IS NOT NULL AND {identity} IS NOT NULL"
        )
        _check(db, file)
        path = folder / f"{at.astimezone(UTC):{MOMENT}}-{file_digest(file.path)[:12]}.parquet"
        with atomic_path(path) as temporary:
            copy_to_parquet(db, f"SELECT * FROM outcomes ORDER BY {ID}", temporary)
        return db.execute(f"SELECT {ID}, outcome FROM outcomes ORDER BY {ID}").df().set_index(ID)["outcome"]


def read_outcomes(out: Path, case: str, as_of: datetime) -> pd.Series:
    """The outcomes that files brought until a moment, by example_id; of several, the newest."""
    import pandas as pd

    latest = f"{as_of.astimezone(UTC):{MOMENT}}~"
    files = sorted(file for file in (out / case / FOLDER).glob("*.parquet") if file.name <= latest)
    if not files:
        return pd.Series(dtype=object)
    rows = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    return rows.drop_duplicates(ID, keep="last").set_index(ID)["outcome"]


def _identity(db: duckdb.DuckDBPyConnection, file: OutcomeFile) -> str:
    """SQL for the id of a row: as `driftline new` forms it from the key."""
    columns = [name for name, *_ in db.execute("DESCRIBE raw").fetchall()]
    named = [ID] if ID in columns else list(file.keys)
    if missing := [name for name in (*named, file.target) if name not in columns]:
        raise DataError(
            f"The file of outcomes lacks {', '.join(missing)}.",
            where=str(file.path),
            found=", ".join(columns),
            allowed=f"{' and '.join(file.keys) or ID} (or {ID}), and {file.target}",
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
