"""Reads CSV and TSV: every field as text; nothing is guessed but the delimiter, from the first lines."""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.duckdb import quote_literal, quote_path
from tasks.core.errors import DataError
from tasks.data.reading.config import FileFormat
from tasks.data.reading.report import MAX_TEXT, RejectedRow
from tasks.data.reading.scan import Cell, Scan
from tasks.data.reading.unpack import CHUNK, PlainFile

if TYPE_CHECKING:
    import duckdb

DELIMITERS = (",", ";", "\t", "|")
FIRST_RECORDS = 20  # that decide the delimiter
OPTIONS = """quote = '"', escape = '"', nullstr = '', comment = '', strict_mode = true, hive_partitioning = false"""
SKIP_REJECTS = "ignore_errors = true"  # in a reader's options; and what lists the rejected lines in a table instead
STORE_REJECTS = "store_rejects = true, rejects_limit = 0, rejects_table = '{table}', rejects_scan = '{table}_scan'"
REASONS = {
    "UNQUOTED VALUE": "a quote that is not closed, or text after a closing quote",
    "INVALID ENCODING": "its bytes are not UTF-8",
    "LINE SIZE OVER MAXIMUM": "a line longer than 2 MB",
    "MAXIMUM LINE SIZE": "a line longer than 2 MB",
}


@dataclass(frozen=True)
class DelimitedScan(Scan):
    """A CSV or TSV file."""

    path: Path = Path()
    header: int = 1  # the header's line

    def lines(self, ordinals: Collection[int], rejected: Sequence[RejectedRow]) -> dict[int, tuple[int, str]]:
        delimiter = self.format.delimiter
        places = ((number, *record) for number, record in enumerate(self._landed(rejected)) if number in ordinals)
        return {number: (line, delimiter.join(fields)) for number, line, fields in places}

    def count_before(self, rejected: Sequence[RejectedRow]) -> list[int]:
        """The number of records that were read before each rejected line; the lines are in order."""
        landed, count, counts = self._landed(rejected), 0, []
        line, _ = next(landed, (sys.maxsize, []))
        for row in rejected:
            while line < row.line:
                count += 1
                line, _ = next(landed, (sys.maxsize, []))
            counts.append(count)
        return counts

    def _landed(self, rejected: Sequence[RejectedRow]) -> Iterator[tuple[int, list[str]]]:
        """Line and fields of the records that were read."""
        skipped, width = {row.line for row in rejected}, len(self.cells)
        return (
            (line, fields)
            for line, fields in _records(self.path, self.format.delimiter)
            if line > self.header and line not in skipped and (fields or width == 1)
        )


def open_delimited(
    file: PlainFile, form: FileFormat, work: Path, *, verbatim: bool
) -> tuple[DelimitedScan, list[RejectedRow]]:
    """A file with its header, and the lines before the header.

    verbatim: fields are texts, with the blanks around them.
    Raises: DataError for a file without a header, or with two columns of one name.
    """
    delimiter = form.delimiter or ("\t" if file.suffix == ".tsv" else _sniff_delimiter(file.path))
    first = [record for record in islice(_records(file.path, delimiter), FIRST_RECORDS) if record[1]]
    if not first:
        raise DataError(f"{file.name} is empty.", where=str(file.path), found="no line", todo="Deliver it again.")
    titles = _count_titles([fields for _, fields in first])
    line, header = first[titles]
    names = column_names(file, [name.strip(" ") for name in header])
    size = _measure(file.path, delimiter)
    path = _with_one_newline(file.path, work) if size.is_mixed else file.path
    columns = ", ".join(f"'c{number}': 'VARCHAR'" for number in range(len(names)))
    relation = (
        f"read_csv({quote_path(path)}, auto_detect = false, header = true, skip = {line - 1}, "
        f"columns = {{{columns}}}, delim = {quote_literal(delimiter)}, {OPTIONS}, {SKIP_REJECTS})"
    )
    scan = DelimitedScan(
        name=file.name,
        relation=relation,
        cells={
            name: _cell(f"c{number}", verbatim=verbatim, trimmed=size.has_blanks) for number, name in enumerate(names)
        },
        records=(size.lines if size.is_plain else _count_records(path, delimiter, len(names))) - 1,
        format=form.model_copy(update={"delimiter": delimiter}),
        path=path,
        header=line,
    )
    reason = f"a title: 1 field, the header in line {line} has {len(names)}"
    return scan, [
        RejectedRow(file=file.name, line=number, column="", text=fields[0], reason=reason)
        for number, fields in first[:titles]
    ]


def with_rejects(scan: DelimitedScan, table: str) -> DelimitedScan:
    """The scan that lists the rejected lines in a new table, for one query."""
    return replace(scan, relation=scan.relation.replace(SKIP_REJECTS, STORE_REJECTS.format(table=table)))


def _cell(field: str, *, verbatim: bool, trimmed: bool) -> Cell:
    if verbatim:
        return Cell(field, type="text")
    return Cell(f"trim({field})" if trimmed else field, raw=field, has_blanks=trimmed)


def column_names(file: PlainFile, names: list[str]) -> list[str]:
    """The names of a header; a column without one is named by its place. Raises: DataError for equal names."""
    filled = [name or f"column{number}" for number, name in enumerate(names)]
    counts = Counter(name.lower() for name in filled)
    if twice := [name for name in filled if counts[name.lower()] > 1]:
        raise DataError(
            f"{file.name} has several columns of one name.",
            where=f"{file.path}, its header",
            found=", ".join(twice[:12]),
            allowed="names that differ in more than case",
            todo="Rename the columns in the file.",
        )
    return filled


def rejected_lines(db: duckdb.DuckDBPyConnection, scan: DelimitedScan, table: str) -> list[RejectedRow]:
    """The lines that DuckDB listed in a table of rejects; their numbers are counted, for it counts records."""
    errors = db.execute(
        "SELECT line_byte_position - 1 AS start, any_value(csv_line), arg_min(error_type::VARCHAR, column_idx), "
        f"arg_min(error_message, column_idx) FROM {table} GROUP BY start ORDER BY start"
    ).fetchall()
    rejected, line, place = [], 1, 0
    with scan.path.open("rb") as content:
        for start, text, kind, message in errors:
            record = (text or "").lstrip("\r\n")  # without the blank lines before it
            start += len(text or "") - len(record)
            before = content.read(start - place)
            line, place = line + (before.count(b"\n") or before.count(b"\r")), start
            rejected.append(
                RejectedRow(
                    file=scan.name,
                    line=line,
                    column="",
                    text=record.rstrip("\r\n")[:MAX_TEXT],
                    reason=_reason(kind, message, len(scan.cells)),
                )
            )
    return rejected


def _reason(kind: str, message: str, width: int) -> str:
    if kind == "TOO MANY COLUMNS":
        return f"more fields than the header's {width}"
    if match := re.search(r"Found: (\d+)", message):
        return f"{match[1]} fields, the header has {width}"
    return REASONS.get(kind, message.splitlines()[0][:200])


def _records(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """First line and fields of each record, blank lines included."""
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8", newline="") as content:
        reader = csv.reader(content, delimiter=delimiter)
        line = 1
        for fields in reader:
            yield line, fields
            line = reader.line_num + 1


def _sniff_delimiter(path: Path) -> str:
    """The delimiter that splits most of the first lines into equally many fields, and into the most."""

    def score(delimiter: str) -> tuple[int, int]:
        widths = Counter(len(fields) for _, fields in islice(_records(path, delimiter), FIRST_RECORDS) if fields)
        width, count = max(widths.items(), key=lambda item: (item[1], item[0]), default=(0, 0))
        return (count, width) if width > 1 else (0, 0)

    return max(DELIMITERS, key=score)


def _count_titles(records: list[list[str]]) -> int:
    """Leading lines of one field before a header and a row that have equally many, more than one."""
    widths = [len(fields) for fields in records]
    titles = next((number for number, width in enumerate(widths) if width > 1), 0)
    rest = [width for width in widths[titles:] if width]
    is_table = len(rest) > 1 and rest[0] == rest[1]
    return titles if is_table else 0


@dataclass(frozen=True)
class _Size:
    lines: int
    is_plain: bool  # neither quotes nor blank lines: each line is a record
    is_mixed: bool  # several kinds of line ends
    has_blanks: bool  # beside a delimiter, quote or line end


def _measure(path: Path, delimiter: str) -> _Size:
    mark = delimiter.encode()
    groups = {  # what is counted only where a file has the first of them
        b'"': (b'"',),
        b"\n": (b"\n", b"\n\n"),
        b"\r": (b"\r", b"\r\n", b"\n\r\n", b"\r\r"),
        b" ": (b" " + mark, mark + b" ", b" \n", b"\n ", b" \r", b"\r ", b'" ', b' "'),
    }
    counts: Counter[bytes] = Counter()
    last = b"\n"
    with path.open("rb") as content:
        while chunk := content.read(CHUNK):
            window = last + chunk
            for first, group in groups.items():
                if first in window:
                    counts.update({each: window.count(each) - last.count(each) for each in group})
            last = window[-2:]
    ends = counts[b"\n"] + counts[b"\r"] - counts[b"\r\n"]
    kinds = [counts[b"\r\n"], counts[b"\n"] - counts[b"\r\n"], counts[b"\r"] - counts[b"\r\n"]]
    is_blank = any(counts[each] for each in (b"\n\n", b"\n\r\n", b"\r\r"))
    return _Size(
        lines=ends + (last[-1:] not in (b"\n", b"\r")),
        is_plain=not counts[b'"'] and not is_blank,
        is_mixed=sum(map(bool, kinds)) > 1,
        has_blanks=any(counts[each] for each in groups[b" "]) or last.endswith(b" "),
    )


def _count_records(path: Path, delimiter: str, width: int) -> int:
    return sum(1 for _, fields in _records(path, delimiter) if fields or width == 1)


def _with_one_newline(path: Path, work: Path) -> Path:
    """A copy in which each line outside of quotes ends alike."""
    out = work / f"lines-{len(list(work.iterdir()))}{path.suffix}"
    parts = re.compile(rb'"[^"]*"|\r\n?')
    out.write_bytes(parts.sub(lambda match: b"\n" if match[0][:1] == b"\r" else match[0], path.read_bytes()))
    return out
