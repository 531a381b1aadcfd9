"""Reads a source's files to the letter: into the table `raw`, with a reconciliation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import DataError
from tasks.data.config import Source
from tasks.data.reading.cells import REASONS, Typing
from tasks.data.reading.config import ColumnDefinition
from tasks.data.reading.delimited import DelimitedScan, column_names, open_delimited, rejected_lines
from tasks.data.reading.inference import infer_columns
from tasks.data.reading.json_records import open_json
from tasks.data.reading.missing import count_missing
from tasks.data.reading.parquet_file import open_parquet
from tasks.data.reading.records import create_records, create_values, rejects_table, stage
from tasks.data.reading.report import MAX_TEXT, ReadReport, RejectedRow
from tasks.data.reading.scan import Scan
from tasks.data.reading.table import GROUP, WHOLE_RECORD, Table
from tasks.data.reading.unpack import JSON, PARQUET, PlainFile, unpack

if TYPE_CHECKING:
    import duckdb

SHOWN = 5  # rejected rows in a report or message


def read_files(
    db: duckdb.DuckDBPyConnection,
    name: str,
    source: Source,
    *,
    files: Sequence[Path],
    work: Path,
    verbatim: bool = False,
) -> ReadReport:
    """Create views `raw` and `records` and the table `rejected` of a source's local files; unpacks them to `work`.

    raw: what landed, columns by name. records: what the files hold, in their order: place (from 0), v0, v1, ... by the
    numbers of the columns, and error, null where it landed. Without `source.columns`, all rows decide the types, which
    `ReadReport.columns` has.
    verbatim: texts keep their blanks and have no types, as instruction pairs need it.
    Raises: DataError for files that can't be read or reconciled, or with more bad rows than the source tolerates.
    """
    import duckdb

    try:
        plain = [unpack(file, source.format, work) for file in files]
        return _read(db, name, source, files=plain, work=work, verbatim=verbatim)
    except duckdb.Error as error:
        raise DataError(
            f"Source {name} could not be read.",
            where=source.uri,
            found=str(error).strip().splitlines()[0][:300],
            todo="Correct the file, or the source's columns and format.",
        ) from error


def _read(
    db: duckdb.DuckDBPyConnection,
    name: str,
    source: Source,
    *,
    files: Sequence[PlainFile],
    work: Path,
    verbatim: bool,
) -> ReadReport:
    opened = [_open(db, file, source, work=work, verbatim=verbatim) for file in files]
    scans = [scan for scan, _ in opened]
    columns, ignored = _columns(files[0], scans, source)
    if len(columns) > GROUP:
        scans = [stage(db, scan, place) for place, scan in enumerate(scans)]
    missing = () if verbatim else source.missing
    table = _typed(db, Table(scans, columns, Typing(missing, scans[0].format.decimal or ".")))
    nested = {name for name, column in table.columns.items() if column and column.type == "json"}
    create_values(db, table, {name for name in nested if verbatim and not table.is_native(name)})
    lost = _lost_lines(db, table, [titles for _, titles in opened])
    create_records(db, table, lost)
    rejected = [row for _, row in lost]
    words, trimmed = count_missing(db, table.only(_with_gaps(db, table)))
    landed = db.execute("SELECT count(*) FROM raw").fetchall()[0][0]
    rejected += _bad_records(db, table, rejected)
    report = ReadReport(
        records=sum(scan.records for scan in scans),
        landed=landed,
        rejected=len(rejected),
        first=tuple(rejected[:SHOWN]),
        columns={name: column for name, column in table.columns.items() if column},
        missing=words,
        trimmed=trimmed,
        ignored=ignored,
        format=scans[0].format.model_copy(update={"decimal": table.typing.decimal}),
    )
    _store_rejected(db, rejected)
    _check(name, source, report)
    return report


def _typed(db: duckdb.DuckDBPyConnection, table: Table) -> Table:
    """The table with the types of its columns; a comma is the decimal separator where that makes numbers of texts."""
    typed = replace(table, columns=infer_columns(db, table))
    form = table.scans[0].format
    is_open = form.delimiter not in ("", ",") and not form.decimal and None in table.columns.values()
    if is_open and not _has_numbers(typed):
        other = replace(table, typing=replace(table.typing, decimal=","))
        other = replace(other, columns=infer_columns(db, other))
        typed = other if _has_numbers(other) else typed
    return typed


def _has_numbers(table: Table) -> bool:
    return any(column is not None and column.type == "number" for column in table.columns.values())


def _open(
    db: duckdb.DuckDBPyConnection, file: PlainFile, source: Source, *, work: Path, verbatim: bool
) -> tuple[Scan, list[RejectedRow]]:
    if file.suffix in PARQUET:
        return open_parquet(db, file, source.format), []
    if file.suffix in JSON:
        return open_json(db, file, source.format, verbatim=verbatim, known=source.columns), []
    return open_delimited(file, source.format, work, verbatim=verbatim)


def _columns(
    file: PlainFile, scans: Sequence[Scan], source: Source
) -> tuple[dict[str, ColumnDefinition | None], tuple[str, ...]]:
    """The columns to read, with their types if declared; and those that are not declared.

    Raises: DataError when a file lacks a declared column.
    """
    names = list(dict.fromkeys(name for scan in scans for name in scan.cells))
    column_names(file, names)  # of several files
    if not source.columns:
        return dict.fromkeys(names), ()
    # a record of JSON may leave out a key; from another file, a column that is missing was lost
    present = {file.name: names} if file.suffix in JSON else {scan.name: list(scan.cells) for scan in scans}
    for file_name, found in present.items():
        if lacking := [name for name in source.columns if name not in found]:
            raise DataError(
                f"{file_name} lacks {', '.join(lacking)}.",
                where=source.uri,
                found=f"columns {', '.join(found[:40])}",
                allowed=f"columns {', '.join(list(source.columns)[:40])}",
                todo="Deliver the columns, or correct the source's columns in case.yaml.",
            )
    return {**source.columns}, tuple(name for name in names if name not in source.columns)


def _lost_lines(
    db: duckdb.DuckDBPyConnection, table: Table, titles: Sequence[Sequence[RejectedRow]]
) -> list[tuple[int, RejectedRow]]:
    """The lines without the header's fields, each with the number of records that were read before it."""
    lost = []
    counts: dict[int, int] = dict(db.execute("SELECT f, count(*) FROM record_values GROUP BY f").fetchall())
    first = 0  # record of this file
    for place, scan in enumerate(table.scans):
        if isinstance(scan, DelimitedScan):
            rows = [*titles[place], *rejected_lines(db, scan, rejects_table(place))]
            before = scan.count_before(rows) if rows else []
            lost += [(first + count, row) for count, row in zip(before, rows, strict=True)]
        first += counts.get(place, 0)
    return lost


def _with_gaps(db: duckdb.DuckDBPyConnection, table: Table) -> list[str]:
    """The columns that lack a value somewhere, or may have blanks around one."""
    counts = ", ".join(f"count(*) - count(v{number})" for number in table.numbers.values())
    gaps = db.execute(f"SELECT {counts} FROM record_values").fetchall()[0]
    return [
        name
        for name, count in zip(table.columns, gaps, strict=True)
        if count or any(cell.has_blanks for cell in table.cells(name))
    ]


def _bad_records(db: duckdb.DuckDBPyConnection, table: Table, rejected: Sequence[RejectedRow]) -> list[RejectedRow]:
    """The records with a value that does not fit, or that are no records, with their lines."""
    names = list(table.columns)
    bad = []
    for place, scan in enumerate(table.scans):
        faults = db.execute(
            "SELECT ordinal - (SELECT min(ordinal) FROM record_values WHERE f = $1), fault.number, fault.text "
            "FROM record_values WHERE f = $1 AND fault IS NOT NULL ORDER BY ordinal",
            [place],
        ).fetchall()
        if not faults:
            continue
        lines = scan.lines({ordinal for ordinal, *_ in faults}, [row for row in rejected if row.file == scan.name])
        for ordinal, number, text in faults:
            line, record = lines.get(ordinal, (0, ""))
            column = names[number] if number != WHOLE_RECORD else ""
            definition = table.columns[column] if column else None
            reason = REASONS[definition.type] if definition else text
            shown = text if column else record
            row = RejectedRow(file=scan.name, line=line, column=column, text=shown[:MAX_TEXT], reason=reason)
            bad.append(row)
    return bad


def _store_rejected(db: duckdb.DuckDBPyConnection, rejected: Sequence[RejectedRow]) -> None:
    import pyarrow as pa

    schema = pa.schema(
        [("file", pa.string()), ("line", pa.int64()), *((n, pa.string()) for n in ("column", "text", "reason"))]
    )
    rows = pa.Table.from_pylist([row.model_dump() for row in rejected], schema)
    db.register("rejected_rows", rows)
    db.execute("CREATE TABLE rejected AS SELECT * FROM rejected_rows ORDER BY file, line")
    db.unregister("rejected_rows")


def _check(name: str, source: Source, report: ReadReport) -> None:
    """Raises: DataError when records are neither landed nor rejected, or too many are rejected."""
    if report.records != report.landed + report.rejected:
        raise DataError(
            f"Source {name} can't be reconciled with its file.",
            where=source.uri,
            found=f"{report.records:,} records in the file, {report.landed:,} read and {report.rejected:,} rejected",
            allowed="records = read + rejected",
            todo="Look for a quote that is not closed, or save the file again by a CSV writer.",
        )
    share = report.rejected / max(report.records, 1)
    if share > source.tolerance:
        raise DataError(
            f"Source {name} has {report.rejected:,} bad rows of {report.records:,} ({share:.1%}).",
            where=source.uri,
            found="".join(f"\n    {row.sentence()}" for row in report.first),
            allowed=f"{source.tolerance:.1%}, its tolerance",
            todo="Correct the file, the source's columns, missing words and format in case.yaml, or its tolerance.",
        )
