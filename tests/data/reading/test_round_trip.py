"""Property: every cell of a table, and every pair, is found again as it was written, or its rejected row is."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tasks.core.duckdb import connect
from tasks.data.config import Answer, Source
from tasks.data.language.pairs import PairFormat, read_pairs
from tasks.data.language.source_tables import read_rows
from tasks.data.reading.files import read_files
from tasks.data.reading.report import ReadReport

EXAMPLES = int(os.environ.get("DRIFTLINE_EXAMPLES", "200"))  # 10,000 before a release
MANY = settings(max_examples=EXAMPLES // 4, deadline=None, database=None, suppress_health_check=list(HealthCheck))
WORDS = [
    *("NA", "N/A", "null", "None", "-", "?", "nan", "NaN", "inf", "-inf", "True", "yes", "on", "#note", "# x", "007"),
    *("+5", "-0", "1e3", "1_000", "0x1F", "1,5", "5.", ".5", "12345678901234567890123", "9223372036854775808", "0"),
    *(
        "2024-01-31",
        "2024-02-30",
        "2024-01-31T10:00:00Z",
        "2024-01-31 10:00",
        "10:00",
        "31.01.2024",
        "1.50",
        " a ",
        "  ",
    ),
    *(
        'say "hi"',
        "a,b",
        "a;b",
        "a\tb",
        "two\nlines",
        "back\\slash",
        "'",
        "Köln",
        "\u2028",
        "\x1f",
        "{}",
        "[1]",
        '""',
        "",
    ),
]
TEXT = st.one_of(
    st.sampled_from(WORDS),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r"), max_size=12),
    st.integers(-(2**70), 2**70).map(str),
    st.floats(allow_nan=True).map(repr),
)
NAMES = st.lists(
    st.text(st.characters(categories=["L", "N"], include_characters=" _-.'\"/~%"), min_size=1, max_size=8)
    .map(lambda name: name.strip(" "))
    .filter(bool),
    min_size=1,
    max_size=6,
    unique_by=str.lower,
)
COLUMN = st.one_of(
    st.just(TEXT),
    st.just(st.integers(-(2**63), 2**63 - 1).map(str)),
    st.just(st.floats(allow_nan=False, allow_infinity=False).map(repr)),
    st.just(st.sampled_from(["2024-01-31", "1999-12-01", ""])),
    st.just(st.datetimes().map(lambda moment: moment.isoformat())),
)
JSON_VALUE = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXT,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
)


def read(name: str, content: bytes, *, verbatim: bool = False, **declared: Any) -> tuple[list[dict], ReadReport, list]:
    """The rows that landed, the report and the rejected rows of a file."""
    source = Source.model_validate({"uri": f"file://{name}", "key": ["id"], "tolerance": 1, **declared})
    with tempfile.TemporaryDirectory() as folder, open_cursor() as db:
        path = Path(folder) / name
        path.write_bytes(content)
        work = Path(folder) / "work"
        work.mkdir()
        report = read_files(db, "source", source, files=[path], work=work, verbatim=verbatim)
        return read_rows(db, "FROM raw"), report, db.execute("FROM rejected").fetchall()


@cache
def database() -> duckdb.DuckDBPyConnection:
    return connect(threads=1)


@contextmanager
def open_cursor() -> Iterator[duckdb.DuckDBPyConnection]:
    """One database for all examples, emptied after each."""
    db = database()
    db.begin()
    try:
        yield db
    finally:
        db.rollback()


def as_text(value: Any, written: str) -> bool:
    """Whether a value says what was written, and nothing else."""
    if value is None:
        return written == "" or written.lower().lstrip("+-") == "nan"
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return str(value) == written
    if isinstance(value, float):
        return math.isfinite(value) and float(written) == value
    if isinstance(value, datetime):
        moment = datetime.fromisoformat(written)
        return value == (moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    if isinstance(value, date):
        return value.isoformat() == written
    return value == written


@seed(21)
@MANY
@given(st.data())
def test_every_cell_of_a_csv_is_found_again(data: st.DataObject):
    """FAULTS 2 to 7, 25, 27: cells of every type and oddity, quoted or not, with bad lines between."""
    names = data.draw(NAMES)
    kinds = data.draw(st.lists(COLUMN, min_size=len(names), max_size=len(names)))
    rows = data.draw(st.lists(st.tuples(*kinds), min_size=1, max_size=12))
    delimiter, end = data.draw(st.sampled_from(",;\t|")), data.draw(st.sampled_from(["\n", "\r\n"]))
    quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    ragged = data.draw(st.sets(st.integers(0, len(rows) - 1), max_size=2)) if len(names) > 1 else set()
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow(names)
    for number, row in enumerate(rows):
        writer.writerow([*row, "one", "more"] if number in ragged else row)
    landed, report, rejected = read("rows.csv", buffer.getvalue().encode(), format={"delimiter": delimiter})
    assert list(report.columns) == names
    assert report.records == len(rows) == len(landed) + len(rejected)
    texts = [row[3] for row in rejected]
    left = iter(landed)
    for number, row in enumerate(rows):
        written = [cell.strip(" ") for cell in row]
        if number in ragged:
            continue
        is_bad = any(
            column.type == "number" and cell.lower().lstrip("+-") in ("inf", "infinity")
            for column, cell in zip(report.columns.values(), written, strict=True)
        )
        if is_bad:
            assert any(cell in texts for cell in written)
            continue
        found = next(left)
        if report.format.decimal == ",":  # which the contract states
            written = [
                cell.replace(",", ".") if isinstance(value, float) else cell
                for value, cell in zip(found.values(), written, strict=True)
            ]
        assert all(as_text(value, cell) for value, cell in zip(found.values(), written, strict=True)), (found, written)
    assert next(left, None) is None


@seed(22)
@MANY
@given(st.lists(st.dictionaries(st.sampled_from(["a", "b/~", "c d", "é", "7"]), JSON_VALUE, min_size=1), min_size=1))
def test_every_value_of_json_lines_is_found_again(records: list[dict]):
    """FAULTS 3, 7, 11, 27: keys and types that change late, whole numbers of any size, nested values."""
    content = "\n".join(json.dumps(record, ensure_ascii=False) for record in records).encode()
    landed, report, rejected = read("rows.jsonl", content)
    assert not rejected
    assert report.landed == len(records) == len(landed)
    for record, found in zip(records, landed, strict=True):
        for key, column in report.columns.items():
            value, written = found[key], record.get(key)
            if written is None:
                assert value is None
            elif column.type == "json":
                assert json.loads(value) == written
            elif written == "":
                assert value is None
            elif column.type == "boolean":
                assert value is written
            elif isinstance(written, str):
                assert as_text(value, written)
            elif isinstance(written, bool):
                assert value == json.dumps(written)
            else:
                assert float(value) == written if isinstance(written, float) else int(value) == written


@seed(23)
@MANY
@given(st.data())
def test_every_value_of_parquet_is_found_again(data: st.DataObject):
    """FAULTS 1, 2: the file's types; NaN is missing, infinite numbers are rejected, times without zone are UTC."""
    strategies: dict[str, tuple[pa.DataType, st.SearchStrategy]] = {
        "int": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
        "unsigned": (pa.uint64(), st.integers(0, 2**64 - 1)),
        "float": (pa.float64(), st.floats()),
        "text": (pa.string(), TEXT),
        "bool": (pa.bool_(), st.booleans()),
        "day": (pa.date32(), st.dates()),
        "naive": (pa.timestamp("us"), st.datetimes()),
        "aware": (pa.timestamp("us", "UTC"), st.datetimes(timezones=st.just(UTC))),
    }
    size = data.draw(st.integers(1, 8))
    columns = {
        name: data.draw(st.lists(st.none() | values, min_size=size, max_size=size))
        for name, (_, values) in strategies.items()
    }
    sink = io.BytesIO()
    pq.write_table(pa.table({name: pa.array(columns[name], kind) for name, (kind, _) in strategies.items()}), sink)
    landed, report, rejected = read("rows.parquet", sink.getvalue())
    infinite = {n for n, value in enumerate(columns["float"]) if value is not None and math.isinf(value)}
    assert {row[1] - 1 for row in rejected} == infinite
    good = [n for n in range(size) if n not in infinite]
    assert report.records == size == len(landed) + len(rejected)
    for n, found in zip(good, landed, strict=True):
        for name, values in columns.items():
            written = values[n]
            if written is None or written == "" or (isinstance(written, float) and math.isnan(written)):
                assert found[name] is None
            elif name == "naive":
                assert found[name] == written.replace(tzinfo=UTC)
            else:
                assert str(found[name]) == str(written) if name == "unsigned" else found[name] == written


@seed(24)
@MANY
@given(
    st.lists(
        st.fixed_dictionaries({"prompt": TEXT.filter(str.strip), "completion": JSON_VALUE}), min_size=1, max_size=8
    )
)
def test_every_pair_is_found_to_the_letter(records: list[dict]):
    """FAULTS 10, 11: answers as objects, lists, texts and numbers, with rare keys and nulls, are never rewritten."""
    content = "\n".join(json.dumps(record) for record in records).encode()
    landed, _, rejected = read("pairs.jsonl", content, verbatim=True)
    assert not rejected
    form = PairFormat(Answer(json_schema={}))
    for record, pair in zip(records, read_pairs("pairs", landed, form), strict=True):
        assert pair.text == record["prompt"]
        if isinstance(record["completion"], dict | list):
            assert pair.problem is None
            assert json.loads(pair.answer) == record["completion"]
