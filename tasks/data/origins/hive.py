"""Parquet data sets whose folders hold columns, such as year=2024/month=01/part-0.parquet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote

from tasks.core.config import digest_of
from tasks.core.duckdb import connect, quote_identifier, quote_literal, scan_parquet
from tasks.core.files import atomic_path, file_digest
from tasks.data.origins.results import FetchedFile
from tasks.data.parquet import copy_to_parquet

MISSING = "__HIVE_DEFAULT_PARTITION__"


def partitions(name: str) -> dict[str, str | None]:
    """The columns that the folders of a file's name hold."""
    pairs = (folder.partition("=") for folder in name.split("/")[:-1] if "=" in folder.strip("="))
    return {unquote(key): None if value == MISSING else unquote(value) for key, _, value in pairs}


def has_partitions(files: Iterable[FetchedFile]) -> bool:
    return any(partitions(file.name) for file in files if file.path.suffix == ".parquet")


def write_partition_columns(
    files: Sequence[FetchedFile], cache: Path, previous: Iterable[FetchedFile]
) -> tuple[FetchedFile, ...]:
    """Copies of the files with the columns of their folders; a copy of an unchanged file is used again.

    A column is an integer when all its values are written as integers are, else text: 01 stays 01.
    """
    values = [partitions(file.name) for file in files]
    whole = {
        key: all(each.get(key) is None or _is_integer(str(each[key])) for each in values)
        for each in values
        for key in each
    }
    copies, before = [], {file.name: file for file in previous}
    for file, columns in zip(files, values, strict=True):
        version = digest_of([file.digest, whole])
        copy = before.get(file.name)
        if copy is None or copy.version != version:
            path = cache / file.name
            _write(file.path, path, {key: (value, whole[key]) for key, value in columns.items()})
            size = path.stat().st_size
            copy = FetchedFile(name=file.name, path=path, digest=file_digest(path), size=size, version=version)
        copies.append(copy)
    return tuple(copies)


def _write(source: Path, path: Path, columns: dict[str, tuple[str | None, bool]]) -> None:
    with atomic_path(path) as temporary, connect() as db:
        scan = scan_parquet(source)
        present = {row[0] for row in db.execute(f"DESCRIBE FROM {scan}").fetchall()}
        extra = [
            f", CAST({'NULL' if value is None else quote_literal(value)} AS {'BIGINT' if whole else 'VARCHAR'}) "
            f"AS {quote_identifier(key)}"
            for key, (value, whole) in columns.items()
            if key not in present
        ]
        copy_to_parquet(db, f"SELECT *{''.join(extra)} FROM {scan}", temporary)


def _is_integer(text: str) -> bool:
    return text.lstrip("-").isdecimal() and text.isascii() and str(int(text)) == text and len(text) < 19
