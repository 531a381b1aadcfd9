"""Reads a file to score: its own cells as they stand, and the examples that the case's SQL makes of its rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.duckdb import connect, quote_identifier, scan_parquet
from tasks.core.errors import CaseError, DataError
from tasks.data.config import Source
from tasks.data.reading.config import ColumnDefinition
from tasks.data.reading.files import read_files
from tasks.data.reading.parquet_file import TYPES as PARQUET_TYPES
from tasks.data.reading.scan import of_type
from tasks.features.sql import sql_errors
from tasks.predict.row_queries import tables_of, with_row_number

if TYPE_CHECKING:
    import duckdb

ROW = "driftline_row"  # the place of a row in the file, from 0
TYPES = {
    "text": "VARCHAR",
    "integer": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "timestamp": "TIMESTAMPTZ",
    "date": "DATE",
    "json": "VARCHAR",
}
TYPED = (".parquet", ".json", ".jsonl", ".ndjson")


@dataclass(frozen=True)
class FileSource:
    """The source whose form a file has, and the SQL that makes examples of it."""

    name: str
    source: Source
    columns: Mapping[str, ColumnDefinition]  # empty: the file itself decides
    examples: str
    needed: tuple[str, ...]  # columns of the examples: features and join keys


def find_source(sources: Mapping[str, Source], examples: str, raw: Path) -> tuple[str, dict[str, ColumnDefinition]]:
    """The only source that the SQL of the examples reads, and its columns: as declared, or as ingested under `raw`.

    Raises: CaseError when it reads several.
    """
    with connect() as db:
        read = tables_of(db, examples)
        names = [name for name in sources if name.lower() in read]
        if len(names) != 1 or len(read) != 1:
            raise CaseError(
                "The examples of the case are made of several tables, so one file does not hold them.",
                where="features.examples",
                found=", ".join(sorted(read)) or "no table",
                allowed="one source of the case",
                todo="Deliver the rows as the source, and run driftline predict CASE without a file.",
            )
        source = sources[names[0]]
        if source.columns or source.sql.strip().rstrip(";") != Source.model_fields["sql"].default:
            return names[0], dict(source.columns)
        types = {}
        for file in sorted((raw / names[0]).glob("*.parquet"))[:1]:
            for column, kind, *_ in db.execute(f"DESCRIBE FROM {scan_parquet(file)}").fetchall():
                types[column] = of_type(
                    next((t for form, t in PARQUET_TYPES.items() if re.fullmatch(form, kind)), "text")
                )
        return names[0], types


def read_rows(db: duckdb.DuckDBPyConnection, file: Path, spec: FileSource, work: Path) -> tuple[str, ...]:
    """Create the tables `cells` and `examples`, and return the names of the file's columns.

    cells: the file's columns, driftline_row, and `fault`: why a row was not read, else null; in the file's order.
    examples: one row for each that was read and that the case's SQL does not leave out, with its driftline_row.
    Raises: DataError, CaseError.
    """
    db.execute("CREATE SCHEMA verbatim; CREATE SCHEMA typed")
    verbatim = not any(suffix.lower() in TYPED for suffix in file.suffixes)
    names = tuple(_read(db, file, spec, columns={}, folder=work / "verbatim", verbatim=verbatim))
    if ROW in names:
        raise DataError(f"The file has a column {ROW}.", where=str(file), todo="Rename it.")
    if lacking := [name for name in spec.columns if name in spec.needed and name not in names]:
        raise DataError(
            f"The file lacks {', '.join(lacking)}.",
            where=str(file),
            found=f"columns {', '.join(names)}",
            allowed=f"at least {', '.join(name for name in spec.columns if name in spec.needed)}",
            todo="Add the columns; a cell may be empty where its value is missing.",
        )
    declared = {name: column for name, column in spec.columns.items() if name in names}
    columns = _read(db, file, spec, columns=declared, folder=work / "typed")
    cell = "nullif(v.v{}, '')" if verbatim else "v.v{}"
    own = ", ".join(f"{cell.format(place)} AS {quote_identifier(name)}" for place, name in enumerate(names))
    rows = "verbatim.records v JOIN typed.records t USING (place) ORDER BY place"
    db.execute(f"CREATE TABLE cells AS SELECT {own}, place AS {ROW}, t.error AS fault FROM {rows}")
    _make_examples(db, spec, columns)
    return names


def _read(
    db: duckdb.DuckDBPyConnection,
    file: Path,
    spec: FileSource,
    *,
    columns: Mapping[str, ColumnDefinition],
    folder: Path,
    verbatim: bool = False,
) -> dict[str, ColumnDefinition]:
    """Read the file into the schema that the folder names; a bad row is reported by itself, however many there are."""
    source = spec.source.model_copy(update={"columns": dict(columns), "tolerance": 1.0})
    folder.mkdir()
    db.execute(f"SET schema = '{folder.name}'")
    try:
        return read_files(db, spec.name, source, files=[file], work=folder, verbatim=verbatim).columns
    finally:
        db.execute("SET schema = 'main'")


def _make_examples(db: duckdb.DuckDBPyConnection, spec: FileSource, columns: Mapping[str, ColumnDefinition]) -> None:
    read = [f"v{place} AS {quote_identifier(name)}" for place, name in enumerate(columns)]
    read += [
        f"NULL::{TYPES[column.type]} AS {quote_identifier(name)}"
        for name, column in spec.columns.items()
        if name not in columns
    ]
    db.execute(f"CREATE VIEW raw AS SELECT place AS {ROW}, {', '.join(read)} FROM typed.records WHERE error IS NULL")
    where = f"data.sources.{spec.name}.sql"
    with sql_errors(where):
        query = with_row_number(db, spec.source.sql, "raw", ROW, where)
        db.execute(f"CREATE TABLE {quote_identifier(spec.name)} AS {query}")
    with sql_errors("features.examples"):
        query = with_row_number(db, spec.examples, spec.name, ROW, "features.examples")
        db.execute(f"CREATE TABLE examples AS {query}")
    rows, places = db.execute(f"SELECT count(*), count(DISTINCT {ROW}) FROM examples").fetchall()[0]
    if rows != places:
        raise CaseError(
            "The SQL of the case makes several examples of a row.",
            where="features.examples",
            found=f"{rows:,} examples of {places:,} rows",
            allowed="one example a row",
            todo="Deliver the rows as the source, and run driftline predict CASE without a file.",
        )
