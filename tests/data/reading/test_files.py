"""Reading a source's files to the letter: types, missing words, bad rows, archives, encodings."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks.core.duckdb import connect
from tasks.core.errors import DataError
from tasks.data.config import Source
from tasks.data.reading.files import read_files
from tasks.data.reading.report import ReadReport

PEOPLE = "id,town,spend\n1,Köln,347.72\n2,Málaga,415.75\n"


def read(folder: Path, name: str, content: bytes | str, **declared: Any) -> tuple[list[tuple], ReadReport]:
    """The rows that landed, and the report."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    source = Source.model_validate({"uri": f"file://{name}", "key": ["id"], **declared})
    work = folder / "work"
    work.mkdir(exist_ok=True)
    with connect(threads=1) as db:
        report = read_files(db, "source", source, files=[path], work=work)
        return db.execute("FROM raw").fetchall(), report


def types(report: ReadReport) -> dict[str, str]:
    return {name: column.type for name, column in report.columns.items()}


def test_times_without_a_zone_and_dates_are_utc(tmp_path: Path):
    """FAULTS 1: a time without a zone is UTC, a date is a date."""
    rows, report = read(tmp_path, "x.csv", "id,at,day\n1,2026-06-01 01:21:36,2026-06-01\n")
    assert rows == [(1, datetime(2026, 6, 1, 1, 21, 36, tzinfo=UTC), date(2026, 6, 1))]
    assert types(report) == {"id": "integer", "at": "timestamp", "day": "date"}


def test_nan_is_missing_and_inf_is_a_bad_row(tmp_path: Path):
    """FAULTS 2: NaN is counted as missing; an infinite number is rejected with its line."""
    rows, report = read(tmp_path, "x.csv", "id,x\n1,1.5\n2,NaN\n3,inf\n4,2\n", tolerance=0.5)
    assert rows == [(1, 1.5), (2, None), (4, 2.0)]
    assert report.missing == {"x": {"nan": 1}}
    assert [(row.line, row.column, row.text) for row in report.first] == [(4, "x", "inf")]


def test_keys_and_types_that_change_late_are_read(tmp_path: Path):
    """FAULTS 3: a key that begins at record 21,000, and a number that becomes fractional there."""
    lines = [f'{{"id": {n}, "x": {n}}}' for n in range(21_000)] + ['{"id": 21000, "x": 7.5, "late": "yes"}']
    rows, report = read(tmp_path, "x.jsonl", "\n".join(lines))
    assert rows[-1] == (21_000, 7.5, "yes")
    assert types(report) == {"id": "integer", "x": "number", "late": "text"}


def test_only_the_empty_field_is_missing(tmp_path: Path):
    """FAULTS 4, 30: NA is a class unless the case says that it is missing; each word is counted."""
    content = "id,market,pieces\n1,NA,3\n2,EU,\n3,null,?\n"
    rows, report = read(tmp_path, "x.csv", content)
    assert rows == [(1, "NA", "3"), (2, "EU", None), (3, "null", "?")]
    assert report.missing == {"pieces": {"": 1}}
    rows, report = read(tmp_path, "x.csv", content, missing=["", "?"])
    assert rows == [(1, "NA", 3), (2, "EU", None), (3, "null", None)]
    assert report.missing == {"pieces": {"": 1, "?": 1}}


def test_a_hash_begins_a_row_like_any_other(tmp_path: Path):
    """FAULTS 5: no line is a comment; a title before the header is rejected by line."""
    rows, report = read(tmp_path, "x.csv", "# till 4\nid,tag\n#1,#new\n#2,old\n", tolerance=0.5)
    assert rows == [("#1", "#new"), ("#2", "old")]
    assert [(row.line, row.text) for row in report.first] == [(1, "# till 4")]


def test_rows_of_another_width_are_rejected(tmp_path: Path):
    """FAULTS 6: within the tolerance rejected with line and reason, beyond it the first one is named."""
    content = 'id,town\n1,"a\nb"\n2\n3,c,more\n4,d\n'
    rows, report = read(tmp_path, "x.csv", content, tolerance=0.5)
    assert rows == [(1, "a\nb"), (4, "d")]
    assert [row.line for row in report.first] == [4, 5]
    assert report.records == report.landed + report.rejected == 4
    with pytest.raises(DataError, match="line 4: 1 fields, the header has 2"):
        read(tmp_path, "x.csv", content)


def test_ids_stay_exact(tmp_path: Path):
    """FAULTS 7: whole numbers beyond 64 bits, leading zeros and a plus sign stay text."""
    content = "id,zip,phone\n92055901758300000007,01234,+49301\n92055901758300000014,98765,+49302\n"
    rows, report = read(tmp_path, "x.csv", content)
    assert set(types(report).values()) == {"text"}
    assert rows[0] == ("92055901758300000007", "01234", "+49301")


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("x.csv", PEOPLE.encode("latin-1"), {"encoding": "latin-1"}),
        ("x.csv", PEOPLE.encode("utf-16"), {}),
        ("x.csv", PEOPLE.encode("utf-8-sig"), {}),
        ("X.CSV", PEOPLE.replace("\n", "\r\n").encode(), {}),
        ("x.csv", PEOPLE.replace("\n", "\r\n", 1).encode(), {}),
        ("x.csv", PEOPLE.replace(",", ";").replace(".", ",").encode(), {}),
        ("x.tsv", PEOPLE.replace(",", "\t").encode(), {}),
        ("x.csv.gz", gzip.compress(PEOPLE.encode()), {}),
    ],
    ids=["latin-1", "utf-16", "mark", "upper case", "mixed lines", "decimal comma", "tsv", "gzip"],
)
def test_every_form_of_a_file_is_read(tmp_path: Path, name: str, content: bytes, form: dict):
    """FAULTS 18, 41: encodings, line ends, endings, decimal commas and gzip give the same rows."""
    rows, report = read(tmp_path, name, content, format=form)
    assert rows == [(1, "Köln", 347.72), (2, "Málaga", 415.75)]
    assert report.format.delimiter in (",", ";", "\t")


def test_bytes_of_another_encoding_name_line_and_setting(tmp_path: Path):
    """FAULTS 18: what can't be decoded is named with the setting that reads it."""
    with pytest.raises(DataError) as error:
        read(tmp_path, "x.csv", PEOPLE.encode("latin-1"))
    assert "line 2" in error.value.where
    assert "encoding" in error.value.todo


def zipped(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def test_a_zip_is_read_by_its_one_data_file(tmp_path: Path):
    """FAULTS 18: a licence and the system's files are no data; of several data files the case names one."""
    archive = zipped(**{"LICENSE.csv": "x", "__MACOSX/._rows.csv": "x", "in/rows.csv": PEOPLE})
    assert len(read(tmp_path, "x.zip", archive)[0]) == 2
    archive = zipped(**{"a.csv": PEOPLE, "b.csv": "id\n7\n"})
    with pytest.raises(DataError, match=r"a\.csv, b\.csv"):
        read(tmp_path, "x.zip", archive)
    assert read(tmp_path, "x.zip", archive, format={"member": "b.csv"})[0] == [(7,)]


def test_words_stay_words_and_json_booleans_are_booleans(tmp_path: Path):
    """FAULTS 27: true, Yes and on in a CSV are text; true of JSON is a boolean."""
    rows, _ = read(tmp_path, "x.csv", "id,gold,spam\n1,true,Yes\n2,false,No\n")
    assert rows[0] == (1, "true", "Yes")
    rows, report = read(tmp_path, "x.jsonl", '{"id": 1, "gold": true}\n{"id": 2, "gold": false}\n')
    assert rows == [(1, True), (2, False)]
    assert types(report)["gold"] == "boolean"


def test_a_declared_column_is_read_strictly(tmp_path: Path):
    """FAULTS 31: one bad cell of a later delivery is rejected with line, column, text and reason."""
    declared = {"columns": {"id": "integer", "day": {"type": "date", "format": "%d.%m.%Y"}}, "tolerance": 0.5}
    rows, report = read(tmp_path, "x.csv", "id,day,extra\n1,31.01.2024,x\n2x,01.02.2024,y\n", **declared)
    assert rows == [(1, date(2024, 1, 31))]
    (bad,) = report.first
    assert (bad.line, bad.column, bad.text, bad.reason) == (3, "id", "2x", "is not a whole number of 64 bits")
    assert report.ignored == ("extra",)
    with pytest.raises(DataError, match="lacks id"):
        read(tmp_path, "x.csv", "number\n1\n", **declared)


def test_blanks_around_fields_are_trimmed_and_counted(tmp_path: Path):
    """FAULTS 39: ' Ely' is Ely; a field of blanks is empty."""
    rows, report = read(tmp_path, "x.csv", "id, town\n1, Ely\n2,  \n")
    assert rows == [(1, "Ely"), (2, None)]
    assert report.trimmed == {"town": 2}


def test_columns_of_one_name_are_refused(tmp_path: Path):
    """FAULTS 25: no column of the user is shadowed, in any spelling."""
    with pytest.raises(DataError, match="several columns of one name"):
        read(tmp_path, "x.csv", "id,Town,town\n1,a,b\n")


def test_an_excel_sheet_is_read(tmp_path: Path):
    """FAULTS 41: numbers, dates and words of a workbook; an old .xls is refused with what to do."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["id", "day", "note"], [1, datetime(2024, 1, 31), "NA"], [2, datetime(2024, 2, 1), None]):
        book.active.append(row)
    book.save(tmp_path / "book.xlsx")
    rows, _ = read(tmp_path, "x.xlsx", (tmp_path / "book.xlsx").read_bytes())
    assert rows == [(1, datetime(2024, 1, 31, tzinfo=UTC), "NA"), (2, datetime(2024, 2, 1, tzinfo=UTC), None)]
    with pytest.raises(DataError) as error:
        read(tmp_path, "x.xls", b"")
    assert "Save it as .xlsx" in error.value.todo


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_wide_file_is_read_like_a_narrow_one(tmp_path: Path, suffix: str):
    """250 columns, read in groups: types, missing words, a bad value in a late group, and a line without fields."""
    names = [f"c{number}" for number in range(250)]
    records = [["id", *names]] + [[str(row), *(f"{row}.5" for _ in names)] for row in range(4)]
    records[2][150] = "bad"
    records[3][249] = ""
    lines = [",".join(record) for record in records]
    lines.insert(3, "short")
    if suffix == "jsonl":
        value = {
            "": None,
            "bad": "bad",
            **{text: json.loads(text) for row in records[1:] for text in row if text < "a" and text},
        }
        lines = [json.dumps(dict(zip(records[0], map(value.get, row), strict=True))) for row in records[1:]]
        lines.insert(2, "{short")
    columns = {"id": "integer", **dict.fromkeys(names, "number")}
    rows, report = read(tmp_path, f"x.{suffix}", "\n".join(lines), columns=columns, tolerance=0.5)
    assert [row[0] for row in rows] == [0, 2, 3]
    assert rows[0][1:] == (0.5,) * 250
    assert rows[1][249] is None
    assert report.missing == {"c248": {"": 1}}
    (bad,) = [row for row in report.first if row.column]
    assert (bad.line, bad.column, bad.text.strip('"')) == (3 if suffix == "csv" else 2, "c149", "bad")
    assert (report.records, report.landed, report.rejected) == (5, 3, 2)


def test_a_wide_file_has_its_types(tmp_path: Path):
    """Inferred in groups, too."""
    names = [f"c{number}" for number in range(250)]
    cells = ["1", "2.5", "a", "2026-06-01"]
    lines = [",".join(["id", *names])] + [",".join(["7", *(cells[n % 4] for n in range(250))])] * 3
    _, report = read(tmp_path, "x.csv", "\n".join(lines))
    kinds = ["integer", "number", "text", "date"]
    assert types(report) == {"id": "integer", **{name: kinds[n % 4] for n, name in enumerate(names)}}


def test_a_bad_value_after_blank_lines_has_its_own_line(tmp_path: Path):
    """A line without fields after blank ones does not shift the lines of those after it."""
    content = "id,n\n1,1\n\n\nshort\n2,2\n3,x\n"
    _, report = read(tmp_path, "x.csv", content, columns={"id": "text", "n": "integer"}, tolerance=0.9)
    assert [(row.line, row.text) for row in report.first] == [(5, "short"), (7, "x")]
