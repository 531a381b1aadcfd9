"""Sources in a database that SQLAlchemy reaches: only the months that have changed are read again.

Rows come in order of time, and late: a long transaction commits rows that are older than what was read, and late values
are filled in. So a watermark alone loses rows. One statement counts each month's rows and late values and takes their
first and last times; a month for which anything differs is read again, whole. All in one transaction, so that counts
and rows agree. A value that is overwritten without a change of these is not noticed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.config import digest_of
from tasks.core.errors import DataError
from tasks.data.origins.address import Address
from tasks.data.origins.connection import open_connection
from tasks.data.origins.results import FetchedFile
from tasks.data.origins.rows import unify_types, write_rows

if TYPE_CHECKING:
    import sqlalchemy as sa

ALL = "all"  # the one part of a table without time
TIMELESS = "without-time"  # the part of the rows whose time is missing
BATCH = 50_000  # rows in memory


@dataclass(frozen=True)
class Month:
    """One month of a table, by the time that its rows became known, as the database counts it."""

    name: str
    rows: int
    first: Any
    last: Any
    version: str  # digest of all that was counted


def fetch_database(
    address: Address, folder: Path, cache: Path, previous: Mapping[str, FetchedFile]
) -> tuple[tuple[FetchedFile, ...], str]:
    """Read the query's rows as Parquet files, named by month; and the watermark: the last time that is known.

    Raises: CaseError, DataError, Unavailable.
    """
    with open_connection(address, folder) as connection:
        if not address.times:
            batches = enumerate(_stream(connection, address, [], None))
            parts = [write_rows(f"{ALL}#{part:04}", *batch, cache) for part, batch in batches]
            return unify_types(parts, cache), ""
        months = _count_months(connection, address)
        files: list[FetchedFile] = []
        for (changed, _), group in groupby(months, lambda each: (_has_changed(each, previous), each.name == TIMELESS)):
            run = list(group)
            if changed:
                files += _read_months(connection, address, run, cache)
            else:
                files += [file for file in previous.values() if month_of(file) in {month.name for month in run}]
    watermark = max((month.last for month in months if month.last is not None), default="")
    return unify_types(files, cache), str(watermark)


def check_database(address: Address, folder: Path) -> None:
    """Check that the database answers, and that the query has the columns that tell the time.

    Raises: CaseError, DataError, Unavailable.
    """
    import sqlalchemy as sa

    with open_connection(address, folder) as connection:
        columns = list(connection.execute(_select(address, [sa.text("*")]).where(sa.false())).keys())
    if missing := [name for name in address.times if name not in columns]:
        raise DataError(
            f"The query of a source lacks {', '.join(missing)}.",
            where=address.uri,
            found=", ".join(columns),
            todo="Add the column to the query, or correct time, known_at or late in case.yaml.",
        )


def month_of(file: FetchedFile) -> str:
    """The month that a fetched file belongs to."""
    return file.name.rpartition("#")[0]


def _has_changed(month: Month, previous: Mapping[str, FetchedFile]) -> bool:
    parts = [file for file in previous.values() if month_of(file) == month.name]
    return not parts or any(part.version != month.version for part in parts)


def _select(address: Address, columns: Sequence[Any]) -> sa.Select[Any]:
    import sqlalchemy as sa

    query = address.query.strip().rstrip(";").replace("\\", "\\\\").replace(":", r"\:")  # : begins a parameter
    return sa.select(*columns).select_from(sa.text(query).columns().subquery("fetched"))


def _count_months(connection: sa.Connection, address: Address) -> list[Month]:
    import sqlalchemy as sa

    columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in address.times]
    known, late = columns[0], columns[1:]
    year, number = sa.extract("year", known), sa.extract("month", known)
    counts: list[Any] = [sa.func.count(), sa.func.min(known), sa.func.max(known)]
    counts += [function(column) for column in late for function in (sa.func.count, sa.func.max)]
    months = [
        Month(
            name=f"{int(row[0]):04}-{int(row[1]):02}" if row[0] is not None else TIMELESS,
            rows=row[2],
            first=row[3],
            last=row[4],
            version=digest_of([str(value) for value in row]),
        )
        for row in connection.execute(_select(address, [year, number, *counts]).group_by(year, number))
    ]
    if unreadable := [month for month in months if month.name == TIMELESS and month.first is not None]:
        raise DataError(
            f"The column {address.times[0]} of a source is no time.",
            where=address.uri,
            found=str(unreadable[0].first)[:80],
            allowed="a timestamp or a date; in SQLite, as ISO 8601 text",
            todo="Convert it in the query.",
        )
    return sorted(months, key=lambda month: month.name)


def _read_months(
    connection: sa.Connection, address: Address, months: Sequence[Month], cache: Path
) -> Iterator[FetchedFile]:
    """Read months that follow each other, or the rows without a time, with one statement; each to its own files."""
    import sqlalchemy as sa

    known: sa.ColumnClause[Any] = sa.column(address.times[0])
    dated = months[0].first is not None
    where = [known >= months[0].first, known <= months[-1].last] if dated else [known.is_(None)]
    counted, left, part = 0, list(months), 0
    for columns, rows in _stream(connection, address, where, known if dated else None):
        at = columns.index(address.times[0])
        while rows:
            end = bisect_right(rows, left[0].last, key=itemgetter(at)) if dated else len(rows)
            if end:
                yield write_rows(f"{left[0].name}#{part:04}", columns, rows[:end], cache, left[0].version)
            counted, part, rows = counted + end, part + 1, rows[end:]
            if rows or counted == left[0].rows:
                _require_all(address, left[0], counted)
                counted, part, left = 0, 0, left[1:]
    if left:
        _require_all(address, left[0], counted)


def _require_all(address: Address, month: Month, counted: int) -> None:
    if counted != month.rows:
        raise DataError(
            "A source's database counts other rows than it delivers.",
            where=f"{address.uri}, {month.name}",
            found=f"{counted:,} rows",
            allowed=f"{month.rows:,} rows",
            todo="Round the times in the query to microseconds, or start again when nobody writes.",
        )


def _stream(
    connection: sa.Connection, address: Address, where: Sequence[sa.ColumnElement[bool]], order: Any
) -> Iterator[tuple[list[str], list[Any]]]:
    """The names of the columns and some rows, again and again; at least once."""
    import sqlalchemy as sa

    statement = _select(address, [sa.text("*")]).where(sa.true(), *where).order_by(order)
    result = connection.execution_options(stream_results=True, max_row_buffer=BATCH).execute(statement)
    columns, batches = list(result.keys()), result.partitions(BATCH)
    yield columns, list(next(batches, []))
    yield from ((columns, list(rows)) for rows in batches)
