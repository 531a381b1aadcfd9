"""Turns a file as delivered into plain UTF-8, Parquet or CSV: unpacks archives, decodes, opens workbooks."""

from __future__ import annotations

import codecs
import csv
import gzip
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tasks.core.errors import DataError
from tasks.core.untrusted import MB, check_zip, reading_untrusted, require_disk_space
from tasks.data.reading.config import FileFormat

MAX_UNPACKED = 64 * 1024 * MB
CHUNK = 4 * MB
DELIMITED, JSON, PARQUET, WORKBOOK = (".csv", ".tsv", ".txt"), (".jsonl", ".ndjson", ".json"), (".parquet",), (".xlsx",)
KINDS = (*DELIMITED, *JSON, *PARQUET, *WORKBOOK)
ABOUT = {"readme", "license", "licence", "copying", "notice", "changelog"}  # files in an archive that are no data
BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class PlainFile:
    """A file ready to read, and the name and line by which messages call its place."""

    path: Path
    suffix: str  # lower case, one of KINDS; a workbook is .csv by now
    name: str


def unpack(origin: Path, form: FileFormat, work: Path) -> PlainFile:
    """The file in a form that is read directly; what had to be unpacked or decoded is written to `work`.

    Raises: DataError for a file of an unsupported kind, a broken archive, or bytes that are not of the encoding.
    """
    plain = PlainFile(origin, origin.suffix.lower(), origin.name)
    if plain.suffix == ".zip":
        plain = _unzip(plain, form, work)
    elif plain.suffix == ".gz":
        plain = _gunzip(plain, work)
    if plain.suffix not in KINDS:
        raise DataError(
            f"{plain.name} is a file of an unsupported kind.",
            where=str(origin),
            found=plain.suffix or "no ending",
            allowed=f"{', '.join(KINDS)}, or one of them in a .zip or .gz",
            todo="Save it as .xlsx or .csv." if plain.suffix in (".xls", ".ods") else "",
        )
    if plain.suffix in WORKBOOK:
        return _read_workbook(plain, form.sheet, work)
    return plain if plain.suffix in PARQUET else _decode(plain, form.encoding, work)


def _unzip(file: PlainFile, form: FileFormat, work: Path) -> PlainFile:
    allowed = f"a .zip without a password that unpacks to {MAX_UNPACKED // MB:,} MB at most"
    with (
        reading_untrusted(f"{file.name} can't be unpacked.", file.path, allowed=allowed),
        zipfile.ZipFile(file.path) as archive,
    ):
        check_zip(archive, file.path.stat().st_size, MAX_UNPACKED)
        names = [member.filename for member in archive.infolist() if not member.is_dir()]
        member = archive.getinfo(_choose_member(file, names, form.member))
        require_disk_space(work, member.file_size)
        suffix = PurePosixPath(member.filename).suffix.lower()
        out = work / f"member-{len(list(work.iterdir()))}{suffix}"
        with archive.open(member) as packed, out.open("wb") as target:
            _copy(packed, target, work)
    return PlainFile(out, suffix, f"{file.name}/{member.filename}")


def _choose_member(file: PlainFile, names: list[str], wanted: str) -> str:
    data = [name for name in names if _is_data(PurePosixPath(name))]
    chosen = [name for name in names if name == wanted] if wanted else data
    if len(chosen) == 1:
        return chosen[0]
    raise DataError(
        f"{file.name} has no file {wanted}." if wanted else f"{file.name} has {len(data) or 'no'} data files.",
        where=str(file.path),
        found=", ".join((names if wanted else data or names)[:12]) or "an empty archive",
        allowed=f"one file of {', '.join(KINDS)}",
        todo="Name the file to read: format: {member: NAME}." if names else "",
    )


def _is_data(path: PurePosixPath) -> bool:
    is_hidden = path.name.startswith(".") or "__MACOSX" in path.parts
    return path.suffix.lower() in KINDS and path.stem.lower() not in ABOUT and not is_hidden


def _gunzip(file: PlainFile, work: Path) -> PlainFile:
    inner = file.path.with_suffix("")
    out = work / f"unpacked-{len(list(work.iterdir()))}{inner.suffix.lower()}"
    with (
        reading_untrusted(f"{file.name} can't be unpacked.", file.path, allowed="a file packed by gzip"),
        gzip.open(file.path) as packed,
        out.open("wb") as target,
    ):
        _copy(packed, target, work)
    return PlainFile(out, inner.suffix.lower(), file.name)


def _copy(source: IO[bytes] | gzip.GzipFile, target: IO[bytes], work: Path) -> None:
    size = 0
    while chunk := source.read(CHUNK):
        size += len(chunk)
        if size > MAX_UNPACKED:
            raise ValueError(f"more than {MAX_UNPACKED // MB:,} MB when unpacked")
        require_disk_space(work, len(chunk))
        target.write(chunk)


def _decode(file: PlainFile, encoding: str, work: Path) -> PlainFile:
    """The file as UTF-8 without a byte order mark: itself, or a copy."""
    with file.path.open("rb") as content:
        start = content.read(4)
    marked = next((name for bom, name in BOMS.items() if start.startswith(bom)), "")
    if marked == "utf-8-sig" and encoding in ("", "utf-8", "utf_8"):
        encoding = marked
    encoding = encoding or marked or "utf-8"
    if encoding in ("utf-8", "utf_8"):
        for _ in _texts(file, "utf-8"):
            pass
        return file
    out = work / f"decoded-{len(list(work.iterdir()))}{file.suffix}"
    require_disk_space(work, 2 * file.path.stat().st_size)
    with out.open("wb") as target:
        for text in _texts(file, encoding):
            target.write(text.encode())
    return PlainFile(out, file.suffix, file.name)


def _texts(file: PlainFile, encoding: str) -> Iterator[str]:
    """The decoded text, chunk by chunk. Raises: DataError naming the line whose bytes are not of the encoding."""
    decoder, lines = codecs.getincrementaldecoder(encoding)("strict"), 1
    with file.path.open("rb") as content:
        while True:
            chunk = content.read(CHUNK)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeError as error:
                before = getattr(error, "object", b"")[: getattr(error, "start", 0)]
                line = lines + before.count(b"\n")
                raise DataError(
                    f"{file.name} is not encoded as {encoding}.",
                    where=f"{file.path}, line {line}",
                    found=repr(getattr(error, "object", b"")[max(len(before) - 12, 0) : len(before) + 4])[1:],
                    todo="Name its encoding: format: {encoding: cp1252}, or latin-1, utf-16, ...",
                ) from error
            lines += text.count("\n")
            yield text
            if not chunk:
                return


def _read_workbook(file: PlainFile, sheet: str, work: Path) -> PlainFile:
    """A sheet as CSV: numbers as they are printed, dates in ISO form."""
    try:
        import openpyxl
    except ImportError as error:
        raise DataError(
            f"{file.name} is an Excel file, and openpyxl is not installed.",
            where=str(file.path),
            todo="pip install openpyxl, or save the sheet as .csv.",
        ) from error
    out = work / f"sheet-{len(list(work.iterdir()))}.csv"
    with reading_untrusted(f"{file.name} can't be read.", file.path, allowed="an Excel workbook, .xlsx"):
        with zipfile.ZipFile(file.path) as archive:
            check_zip(archive, file.path.stat().st_size, MAX_UNPACKED)
        book = openpyxl.load_workbook(file.path, read_only=True, data_only=True)
        if sheet and sheet not in book.sheetnames:
            raise DataError(
                f"{file.name} has no sheet {sheet}.", where=str(file.path), allowed=", ".join(book.sheetnames)
            )
        with out.open("w", encoding="utf-8", newline="") as target:
            writer = csv.writer(target, lineterminator="\n")
            rows = (book[sheet] if sheet else book.worksheets[0]).iter_rows(values_only=True)
            for row in _table(list(rows)):
                writer.writerow(row)
        book.close()
    return PlainFile(out, ".csv", f"{file.name}/{sheet}" if sheet else file.name)


def _table(rows: list[tuple[Any, ...]]) -> list[list[str]]:
    """The cells as text, without empty rows and columns at the end."""
    texts = [[_cell(value) for value in row] for row in rows]
    width = max((number for row in texts for number, text in enumerate(row, 1) if text), default=0)
    while texts and not any(texts[-1]):
        texts.pop()
    return [[*row[:width], *[""] * (width - len(row))] for row in texts]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, bool):
        return str(value).upper()  # as Excel shows it
    return value.isoformat() if isinstance(value, date) else str(value)
