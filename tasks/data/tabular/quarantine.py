"""Bad rows out of a source's batches: the views that checks are put to, the quarantine file, the clean batches."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.duckdb import quote_identifier, quote_literal, scan_parquet
from tasks.core.files import atomic_path
from tasks.data.tabular.gx_runner import Check

if TYPE_CHECKING:
    import duckdb

ROW = "_row"  # number of a row: its batch's place in the upper bits, its place in the batch in the lower 40


def make_views(db: duckdb.DuckDBPyConnection, batches: Mapping[str, Path]) -> None:
    """Make the views `plain` (all batches) and `numbered` (with row numbers), and the table `names` of the batches."""
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
    """Make the view that row checks are put to: `numbered`, and what DuckDB finds out faster than Great Expectations.

    unique: columns that name a row together; the view's column `count_name` has the number of rows with the same
    values. references: Parquet file or folder by (column, TABLE.COLUMN); the view's column `lookup_name` repeats the
    value where the reference has it, and is empty where not.
    """
    found, joins = ["n.*"], []
    for place, ((column, reference), path) in enumerate(references.items()):
        here, there = quote_identifier(column), quote_identifier(reference.partition(".")[2])
        db.execute(
            f"CREATE TABLE unmatched_{place} AS SELECT DISTINCT {here} AS value FROM numbered n "
            f"WHERE {here} IS NOT NULL AND NOT EXISTS (FROM {scan_parquet(path)} r WHERE r.{there} = n.{here})"
        )
        value = f"CASE WHEN n.{here} IN (SELECT value FROM unmatched_{place}) THEN NULL ELSE n.{here} END"
        found.append(f"{value} AS {quote_identifier(lookup_name(column, reference))}")
    for place, columns in enumerate(unique):
        some = _find_copies(db, f"copies_{place}", columns)
        count = f"coalesce(copies_{place}.copies, 1)" if some else "1"
        found.append(f"{count} AS {quote_identifier(count_name(columns))}")
        joins += [f"LEFT JOIN copies_{place} ON copies_{place}.number = n.{ROW}"] * some
    db.execute(f"CREATE VIEW {quote_identifier(view)} AS SELECT {', '.join(found)} FROM numbered n {' '.join(joins)}")


def lookup_name(column: str, reference: str) -> str:
    """The judged view's column that holds looked-up values."""
    return f"{column} in {reference}"


def count_name(columns: Iterable[str]) -> str:
    """The judged view's column that holds the number of rows with the same values."""
    return f"rows with the same {', '.join(columns)}"


def _find_copies(db: duckdb.DuckDBPyConnection, table: str, names: Sequence[str]) -> bool:
    """Make a table of rows that share values, none empty; of rows equal throughout, the first is left out."""
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


def record_bad_rows(db: duckdb.DuckDBPyConnection, found: Mapping[int, Iterable[int]]) -> dict[str, int]:
    """Make the table `bad` of row numbers and the checks they fail; how many rows of each batch are in it."""
    import pyarrow as pa

    numbers = [number for of_check in found.values() for number in of_check]
    checks = [at for at, of_check in found.items() for _ in of_check]
    noted = pa.table({"number": pa.array(numbers, pa.int64()), "fails": pa.array(checks, pa.int64())})
    db.register("noted", noted)
    db.execute("CREATE TABLE bad AS SELECT DISTINCT number, fails FROM noted")
    db.unregister("noted")
    counts = db.execute(
        "SELECT batch, count(DISTINCT number) FROM bad JOIN names ON number >> 40 = place GROUP BY ALL ORDER BY batch"
    )
    return dict(counts.fetchall())


def write_quarantine(db: duckdb.DuckDBPyConnection, view: str, checks: Sequence[Check], path: Path) -> Path:
    """Write the bad rows as they came, in their order, with `batch` and `reasons` (a list, one a check not met)."""
    columns = [name for (name, *_) in db.execute("DESCRIBE plain").fetchall()]
    batch, reasons = (name + "_" * (name in columns) for name in ("batch", "reasons"))
    cases = " ".join(f"WHEN {check.at} THEN {_reason(check)}" for check in checks)
    # one pass over the files; what follows is small
    db.execute(f"CREATE TABLE aside AS FROM {quote_identifier(view)} WHERE {ROW} IN (SELECT number FROM bad)")
    of_row = ", ".join(f"a.{quote_identifier(column)}" for column in columns)
    select = (
        f"SELECT {of_row}, batch AS {batch}, told.reasons AS {reasons} "
        f"FROM aside a JOIN names ON a.{ROW} >> 40 = place JOIN ("
        f"SELECT number, list(CASE fails {cases} END ORDER BY fails) AS reasons FROM bad JOIN aside ON number = {ROW} "
        f"GROUP BY number) told ON told.number = a.{ROW} ORDER BY a.{ROW}"
    )
    with atomic_path(path) as temporary:
        _copy(db, select, temporary)
    return path


def write_clean(
    db: duckdb.DuckDBPyConnection, batches: Mapping[str, Path], bad: Mapping[str, int], folder: Path
) -> None:
    """Write FOLDER/BATCH.parquet of each batch without its bad rows; one without any is linked, not written again."""
    for place, (name, path) in enumerate(batches.items()):
        with atomic_path(folder / f"{name}.parquet") as temporary:
            if bad.get(name):
                those = f"SELECT number - ({place}::BIGINT << 40) FROM bad WHERE number >> 40 = {place}"
                _copy(db, f"SELECT * FROM {scan_parquet(path)} WHERE file_row_number NOT IN ({those})", temporary)
            else:
                _link(path, temporary)


def _link(path: Path, to: Path) -> None:
    try:
        os.link(path, to)
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(path, to)


def _reason(check: Check) -> str:
    """SQL for the sentence that a quarantined row carries."""
    values = [f"coalesce({quote_identifier(column)}::VARCHAR, 'nothing')" for column in check.columns]
    if len(values) > 1:
        values = [
            f"{quote_literal(column + ' ')} || {value}" for column, value in zip(check.columns, values, strict=True)
        ]
    parts = [quote_literal(f"{check.label}: found "), " || ', ' || ".join(values)]
    if check.counted:
        parts += ["' in '", f"{quote_identifier(check.counted)}::VARCHAR", "' rows'"]
    if check.allowed:
        parts.append(quote_literal(f"; {check.allowed}"))
    return " || ".join(parts)


def _copy(db: duckdb.DuckDBPyConnection, select: str, path: Path) -> None:
    import duckdb

    try:
        db.execute(f"COPY ({select}) TO {quote_literal(path)} (FORMAT parquet)")
    except duckdb.IOException as error:
        if "No space left" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error  # as whole() knows it
        raise
