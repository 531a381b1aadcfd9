"""Bad rows out of a source's batches: the views that checks are put to, the quarantine file, the clean batches."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.data.judge import Check
from tasks.foundation.files import whole

if TYPE_CHECKING:
    import duckdb

ROW = "_row"  # number of a row over all batches, in their order
COPIES = "_rows_with_this_key"


def quote(name: str) -> str:
    """An identifier for SQL."""
    return '"' + name.replace('"', '""') + '"'


def text(value: object) -> str:
    """A text literal for SQL."""
    return "'" + str(value).replace("'", "''") + "'"


def scan(path: Path) -> str:
    """SQL that reads a Parquet file, or all in a folder."""
    return f"read_parquet({text(path / '*.parquet' if path.is_dir() else path)}, hive_partitioning = false)"


def make_views(db: duckdb.DuckDBPyConnection, batches: Mapping[str, Path], rows: Mapping[str, int]) -> None:
    """Make the views `numbered` (all batches with row numbers) and `plain` (without), and the table `spans`."""
    parts, start = [], 0
    db.execute("CREATE TABLE spans (batch VARCHAR, start BIGINT, stop BIGINT)")
    for name, path in batches.items():
        files = f"read_parquet({text(path)}, hive_partitioning = false, file_row_number = true)"
        parts.append(f"SELECT * EXCLUDE (file_row_number), file_row_number + {start} AS {ROW} FROM {files}")
        db.execute("INSERT INTO spans VALUES (?, ?, ?)", [name, start, start + rows[name]])
        start += rows[name]
    db.execute(f"CREATE VIEW numbered AS {' UNION ALL BY NAME '.join(parts)}")
    db.execute(f"CREATE VIEW plain AS SELECT * EXCLUDE ({ROW}) FROM numbered")


def make_judged_view(
    db: duckdb.DuckDBPyConnection, view: str, key: Sequence[str], references: Mapping[tuple[str, str], Path]
) -> None:
    """Make the view that row checks are put to: `numbered`, the number of rows with a row's key, and looked-up values.

    `references` has the Parquet file or folder by (column, TABLE.COLUMN): the column TABLE.COLUMN of the view repeats
    the value where the reference has it, and is empty where not.
    """
    looked_up = []
    for at, ((column, reference), path) in enumerate(references.items()):
        there = quote(reference.partition(".")[2])
        db.execute(
            f"CREATE TABLE unmatched_{at} AS SELECT DISTINCT {quote(column)} AS value FROM numbered "
            f"WHERE {quote(column)} IS NOT NULL AND NOT EXISTS (FROM {scan(path)} r WHERE r.{there} = numbered.{quote(column)})"
        )
        found = f"CASE WHEN {quote(column)} IN (SELECT value FROM unmatched_{at}) THEN NULL ELSE {quote(column)} END"
        looked_up.append(f"{found} AS {quote(lookup_name(column, reference))}")
    copies = f"LEFT JOIN copies c ON c.number = n.{ROW}" if _find_copies(db, key) else ""
    counted = "coalesce(c.copies, 1)" if copies else "1"
    db.execute(
        f"CREATE VIEW {quote(view)} AS SELECT {', '.join(['n.*', f'{counted} AS {COPIES}', *looked_up])} "
        f"FROM numbered n {copies}"
    )


def lookup_name(column: str, reference: str) -> str:
    """The judged view's column that holds the looked-up value."""
    return f"{column} in {reference}"


def _find_copies(db: duckdb.DuckDBPyConnection, key: Sequence[str]) -> bool:
    """Make the table `copies` of rows that share a complete key; of rows equal throughout, the first is left out."""
    columns = ", ".join(map(quote, key))
    complete = " AND ".join(f"{quote(column)} IS NOT NULL" for column in key)
    db.execute(
        f"CREATE TABLE repeated AS SELECT {columns} FROM numbered WHERE {complete} GROUP BY {columns} HAVING count(*) > 1"
    )
    if not db.execute("SELECT count(*) FROM repeated").fetchall()[0][0]:
        return False
    db.execute(f"CREATE TABLE sharing AS FROM numbered SEMI JOIN repeated USING ({columns})")
    everything = ", ".join(quote(name) for (name, *_) in db.execute("DESCRIBE plain").fetchall())
    db.execute(
        f"CREATE TABLE copies AS SELECT {ROW} AS number, copies FROM sharing JOIN ("
        f"SELECT {columns}, count(*) AS copies, min({ROW}) AS first, count(DISTINCT row({everything})) AS versions "
        f"FROM sharing GROUP BY {columns}) USING ({columns}) WHERE versions > 1 OR {ROW} > first"
    )
    return True


def note_bad_rows(db: duckdb.DuckDBPyConnection, found: Mapping[int, Iterable[int]]) -> dict[str, int]:
    """Make the table `bad` of row and check numbers; how many rows each batch has in it."""
    import pyarrow as pa

    rows = [row for numbers in found.values() for row in numbers]
    checks = [at for at, numbers in found.items() for _ in numbers]
    noted = pa.table({"row": pa.array(rows, pa.int64()), "check": pa.array(checks, pa.int64())})
    db.register("noted", noted)
    db.execute('CREATE TABLE bad AS SELECT DISTINCT "row" AS number, "check" AS fails FROM noted')
    db.unregister("noted")
    counts = db.execute(
        "SELECT batch, count(DISTINCT number) FROM bad JOIN spans ON number >= start AND number < stop "
        "GROUP BY batch ORDER BY batch"
    )
    return dict(counts.fetchall())


def write_quarantine(db: duckdb.DuckDBPyConnection, view: str, checks: Sequence[Check], path: Path) -> Path:
    """Write the bad rows as they came, in their order, with `batch` and `reasons` (a list, one a check not met)."""
    columns = [name for (name, *_) in db.execute("DESCRIBE plain").fetchall()]
    batch, reasons = (name + "_" * (name in columns) for name in ("batch", "reasons"))
    cases = " ".join(f"WHEN {check.at} THEN {_reason(check)}" for check in checks)
    db.execute(
        f"CREATE TABLE put_aside AS FROM {quote(view)} WHERE {ROW} IN (SELECT number FROM bad)"  # one pass over the files
    )
    select = (
        f"SELECT {', '.join('p.' + quote(column) for column in columns)}, s.batch AS {batch}, w.reasons AS {reasons} "
        f"FROM put_aside p JOIN spans s ON p.{ROW} >= s.start AND p.{ROW} < s.stop JOIN ("
        f"SELECT number, list(CASE fails {cases} END ORDER BY fails) AS reasons FROM bad JOIN put_aside ON number = {ROW} "
        f"GROUP BY number) w ON w.number = p.{ROW} ORDER BY p.{ROW}"
    )
    with whole(path) as temporary:
        _copy(db, select, temporary)
    return path


def write_clean(
    db: duckdb.DuckDBPyConnection, batches: Mapping[str, Path], bad: Mapping[str, int], folder: Path
) -> None:
    """Write FOLDER/BATCH.parquet of each batch without its bad rows; a batch without any is linked, not written again."""
    for name, path in batches.items():
        with whole(folder / f"{name}.parquet") as temporary:
            if not bad.get(name):
                _link(path, temporary)
                continue
            start = db.execute("SELECT start FROM spans WHERE batch = ?", [name]).fetchall()[0][0]
            good = (
                f"SELECT * EXCLUDE (file_row_number) FROM read_parquet({text(path)}, hive_partitioning = false, "
                f"file_row_number = true) WHERE file_row_number + {start} NOT IN (SELECT number FROM bad)"
            )
            _copy(db, good, temporary)


def _link(path: Path, to: Path) -> None:
    try:
        os.link(path, to)
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(path, to)


def _reason(check: Check) -> str:
    """SQL for the sentence that a quarantined row carries."""
    values = [f"coalesce({quote(column)}::VARCHAR, 'nothing')" for column in check.columns]
    if len(values) > 1:
        values = [f"{text(column + ' ')} || {value}" for column, value in zip(check.columns, values, strict=True)]
    found = " || ', ' || ".join(values)
    if check.counted:
        found += f" || ' in ' || {COPIES} || ' rows'"
    return f"{text(f'{check.label}: found ')} || {found}" + (
        f" || {text('; ' + check.allowed)}" if check.allowed else ""
    )


def _copy(db: duckdb.DuckDBPyConnection, select: str, path: Path) -> None:
    import duckdb

    try:
        db.execute(f"COPY ({select}) TO {text(path)} (FORMAT parquet)")
    except duckdb.IOException as error:
        if "No space left" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error  # as whole() knows it
        raise
