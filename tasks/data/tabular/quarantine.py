"""Separates bad rows from a source's batches: the views that checks run on, the quarantine file, the clean batches."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.duckdb import quote_identifier, quote_literal, scan_parquet
from tasks.core.files import atomic_path
from tasks.data.parquet import copy_to_parquet
from tasks.data.tabular.checks import Check, count_name, lookup_name

if TYPE_CHECKING:
    import duckdb

ROW = "_row"  # number of a row: its batch's place in the upper bits, its place in the batch in the lower 40


def make_views(db: duckdb.DuckDBPyConnection, batches: Mapping[str, Path]) -> None:
    """Create the views `plain` (all batches) and `numbered` (with row numbers), and the table `names` of batches."""
    db.execute("SET parquet_metadata_cache = true")  # some fifty queries read the same files
    db.execute("CREATE TABLE names AS SELECT unnest(range(len(?))) AS place, unnest(?) AS batch", [list(batches)] * 2)
    files = scan_parquet(*batches.values())
    db.execute(f"CREATE VIEW plain AS FROM {files}")
    db.execute(f"CREATE VIEW numbered AS SELECT *, (file_index::BIGINT << 40) + file_row_number AS {ROW} FROM {files}")


def make_validated_view(
    db: duckdb.DuckDBPyConnection,
    view: str,
    unique: Iterable[tuple[str, ...]],
    references: Mapping[tuple[str, str], Path],
) -> None:
    """Create the view that row checks run on: `numbered`, and what DuckDB computes faster than Great Expectations.

    unique: columns that identify a row together; the view's column `count_name` has the number of rows with the same
    values. references: Parquet file or folder by (column, TABLE.COLUMN); the view's column `lookup_name` repeats the
    value if the reference contains it, and is empty if not.
    """
    selected, joins = ["n.*"], []
    for place, ((column, reference), path) in enumerate(references.items()):
        local, remote = quote_identifier(column), quote_identifier(reference.partition(".")[2])
        db.execute(
            f"CREATE TABLE unmatched_{place} AS SELECT DISTINCT {local} AS value FROM numbered n "
            f"WHERE {local} IS NOT NULL AND NOT EXISTS (FROM {scan_parquet(path)} r WHERE r.{remote} = n.{local})"
        )
        value = f"CASE WHEN n.{local} IN (SELECT value FROM unmatched_{place}) THEN NULL ELSE n.{local} END"
        selected.append(f"{value} AS {quote_identifier(lookup_name(column, reference))}")
    for place, columns in enumerate(unique):
        has_duplicates = _find_duplicates(db, f"copies_{place}", columns)
        count = f"coalesce(copies_{place}.copies, 1)" if has_duplicates else "1"
        selected.append(f"{count} AS {quote_identifier(count_name(columns))}")
        joins += [f"LEFT JOIN copies_{place} ON copies_{place}.number = n.{ROW}"] * has_duplicates
    select = f"SELECT {', '.join(selected)} FROM numbered n {' '.join(joins)}"
    db.execute(f"CREATE VIEW {quote_identifier(view)} AS {select}")


def _find_duplicates(db: duckdb.DuckDBPyConnection, table: str, names: Sequence[str]) -> bool:
    """Create a table of rows that share values, none empty; of rows equal in all columns, the first is left out."""
    columns = ", ".join(map(quote_identifier, names))
    complete = " AND ".join(f"{quote_identifier(name)} IS NOT NULL" for name in names)
    db.execute(
        f"CREATE TABLE {table}_values AS SELECT {columns} FROM numbered WHERE {complete} "
        f"GROUP BY {columns} HAVING count(*) > 1"
    )
    if not db.execute(f"SELECT count(*) FROM {table}_values").fetchall()[0][0]:
        return False
    db.execute(f"CREATE TABLE {table}_rows AS FROM numbered SEMI JOIN {table}_values USING ({columns})")
    everything = ", ".join(quote_identifier(name) for (name, *_) in db.execute("DESCRIBE plain").fetchall())
    db.execute(
        f"CREATE TABLE {table} AS SELECT {ROW} AS number, copies FROM {table}_rows JOIN ("
        f"SELECT {columns}, count(*) AS copies, min({ROW}) AS first, count(DISTINCT row({everything})) AS versions "
        f"FROM {table}_rows GROUP BY {columns}) USING ({columns}) WHERE versions > 1 OR {ROW} > first"
    )
    return True


def record_bad_rows(db: duckdb.DuckDBPyConnection, rows_by_check: Mapping[int, Sequence[int]]) -> dict[str, int]:
    """Create the table `bad` of row numbers and the checks they fail; returns its number of rows by batch."""
    import pyarrow as pa

    numbers = [number for rows in rows_by_check.values() for number in rows]
    checks = [check for check, rows in rows_by_check.items() for _ in rows]
    noted = pa.table({"number": pa.array(numbers, pa.int64()), "fails": pa.array(checks, pa.int64())})
    db.register("noted", noted)
    db.execute("CREATE TABLE bad AS SELECT DISTINCT number, fails FROM noted")
    db.unregister("noted")
    counts = db.execute(
        "SELECT batch, count(DISTINCT number) FROM bad JOIN names ON number >> 40 = place GROUP BY ALL ORDER BY batch"
    )
    return dict(counts.fetchall())


def write_quarantine(db: duckdb.DuckDBPyConnection, view: str, checks: Sequence[Check], path: Path) -> Path:
    """Write the bad rows unchanged, in their order, with `batch` and `reasons` (a list, one per check not met)."""
    columns = [name for (name, *_) in db.execute("DESCRIBE plain").fetchall()]
    batch, reasons = (name + "_" * (name in columns) for name in ("batch", "reasons"))
    cases = " ".join(f"WHEN {check.number} THEN {_reason(check)}" for check in checks)
    # one pass over the files; the rest is small
    db.execute(f"CREATE TABLE bad_rows AS FROM {quote_identifier(view)} WHERE {ROW} IN (SELECT number FROM bad)")
    values = ", ".join(f"a.{quote_identifier(column)}" for column in columns)
    select = (
        f"SELECT {values}, batch AS {batch}, r.reasons AS {reasons} "
        f"FROM bad_rows a JOIN names ON a.{ROW} >> 40 = place JOIN ("
        f"SELECT number, list(CASE fails {cases} END ORDER BY fails) AS reasons FROM bad JOIN bad_rows "
        f"ON number = {ROW} GROUP BY number) r ON r.number = a.{ROW} ORDER BY a.{ROW}"
    )
    with atomic_path(path) as temporary:
        copy_to_parquet(db, select, temporary)
    return path


def write_clean(
    db: duckdb.DuckDBPyConnection, batches: Mapping[str, Path], bad: Mapping[str, int], folder: Path
) -> None:
    """Write FOLDER/BATCH.parquet of each batch without its bad rows; a batch without bad rows is linked, not copied."""
    for place, (name, path) in enumerate(batches.items()):
        with atomic_path(folder / f"{name}.parquet") as temporary:
            if bad.get(name):
                numbers = f"SELECT number - ({place}::BIGINT << 40) FROM bad WHERE number >> 40 = {place}"
                select = f"SELECT * FROM {scan_parquet(path)} WHERE file_row_number NOT IN ({numbers})"
                copy_to_parquet(db, select, temporary)
            else:
                _link(path, temporary)


def _link(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(path, target)


def _reason(check: Check) -> str:
    """SQL for the reason in a quarantined row."""
    values = [f"coalesce({quote_identifier(column)}::VARCHAR, 'nothing')" for column in check.columns]
    if len(values) > 1:
        values = [
            f"{quote_literal(column + ' ')} || {value}" for column, value in zip(check.columns, values, strict=True)
        ]
    parts = [quote_literal(f"{check.label}: found "), " || ', ' || ".join(values)]
    if check.count_column:
        parts += ["' in '", f"{quote_identifier(check.count_column)}::VARCHAR", "' rows'"]
    if check.allowed:
        parts.append(quote_literal(f"; {check.allowed}"))
    return " || ".join(parts)
