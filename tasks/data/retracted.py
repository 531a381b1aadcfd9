"""Rows that must not be read again, because a person has withdrawn them: a list of salted digests beside a case's data.

The list names no person, and a run drops each row that matches before anything is validated.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from tasks.core.config import Result
from tasks.core.duckdb import quote_identifier, quote_literal
from tasks.core.errors import DataError
from tasks.core.files import write_text

if TYPE_CHECKING:
    import duckdb

LIST = "retracted.json"
SEPARATOR = "\x1f"  # between the values of a key of several columns


class Retracted(Result):
    """One row, by the columns of its key."""

    columns: tuple[str, ...]
    salt: str
    digest: str  # SHA-256 over salt and values
    snapshots: tuple[str, ...] = ()  # digests of those that had the row

    def matches(self, columns: tuple[str, ...], values: tuple[str, ...]) -> bool:
        return columns == self.columns and _digest(self.salt, values) == self.digest


_LIST = TypeAdapter(tuple[Retracted, ...])


def new_retraction(columns: tuple[str, ...], values: tuple[str, ...]) -> Retracted:
    salt = secrets.token_hex(16)
    return Retracted(columns=columns, salt=salt, digest=_digest(salt, values))


def _digest(salt: str, values: tuple[str, ...]) -> str:
    return hashlib.sha256((salt + SEPARATOR.join(values)).encode()).hexdigest()


def retracted_list(raw: Path) -> Path:
    """The list of a case; `raw` is DATA/raw/CASE."""
    return raw / LIST


def read_retracted(raw: Path) -> tuple[Retracted, ...]:
    """Raises: DataError when the list is damaged: no run may go on as if nothing were retracted."""
    path = retracted_list(raw)
    if not path.is_file():
        return ()
    try:
        return _LIST.validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(
            "The list of retracted rows can't be read.",
            where=str(path),
            found=str(error).splitlines()[0],
            todo="Restore it from a backup.",
        ) from error


def write_retracted(raw: Path, rows: tuple[Retracted, ...]) -> None:
    write_text(retracted_list(raw), _LIST.dump_json(rows, indent=1).decode())


def copy_retracted(raw: Path, to: Path) -> None:
    """Let a sandbox leave out the same rows."""
    if retracted_list(raw).is_file():
        to.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(retracted_list(raw), retracted_list(to))


def drop_retracted(db: duckdb.DuckDBPyConnection, table: str, rows: tuple[Retracted, ...]) -> None:
    """Delete the rows that match from a table; one without the columns has none."""
    names = {name for name, *_ in db.execute(f"DESCRIBE {table}").fetchall()}
    for row in rows:
        if set(row.columns) <= names:
            text = f" || {quote_literal(SEPARATOR)} || ".join(f"{quote_identifier(n)}::VARCHAR" for n in row.columns)
            db.execute(f"DELETE FROM {table} WHERE sha256(? || {text}) = ?", [row.salt, row.digest])
