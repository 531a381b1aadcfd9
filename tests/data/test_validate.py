"""Validation: what is put aside and why, what fails, what is only said; with Great Expectations on DuckDB."""

from __future__ import annotations

import re
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from tasks.core.errors import CaseError, DataError, Unavailable
from tasks.core.files import atomic_path, file_digest
from tasks.data.config import Source
from tasks.data.results import Validation
from tasks.data.tabular import validate as room
from tasks.data.tabular.quarantine import _copy
from tasks.data.tabular.validate import validate

AS_OF = datetime(2013, 2, 1, tzinfo=UTC)
GOOD = "SELECT 'k' || i AS id, i AS n, i / 4.0 AS x, 'c' || (i % 4) AS code, " \
    "TIMESTAMPTZ '2013-01-01 00:00:00+00' + to_hours(i::INTEGER) AS at FROM range(200) r(i)"  # fmt: skip


class Desk:
    """A folder to write batches to, and one validation of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.batches: dict[str, Path] = {}

    def write(self, name: str, sql: str) -> Path:
        path = self.folder / f"{name}.parquet"
        with duckdb.connect() as db:
            db.execute(f"SET TimeZone = 'UTC'; COPY ({sql}) TO '{path}' (FORMAT parquet)")
        return path

    def batch(self, name: str, sql: str = GOOD) -> None:
        self.batches[name] = self.write(name, sql)

    def validate(self, *expectations: dict, references: dict[str, Path] | None = None, **config) -> Validation:
        source = Source.model_validate(
            {"uri": "file://x", "key": ["id"], "time": "at", "tolerance": 0.05, "expectations": expectations, **config}
        )
        out = self.folder / "out"
        return validate(
            "trips", self.batches, source, references or {}, AS_OF, out / "docs", out / "bad.parquet", out / "clean"
        )

    def clean(self, name: str) -> Path:
        return self.folder / "out" / "clean" / f"{name}.parquet"

    def ask(self, sql: str) -> list[tuple]:
        with duckdb.connect() as db:
            return db.execute(f"SET TimeZone = 'UTC'; {sql}").fetchall()

    def aside(self) -> list[tuple]:
        return self.ask(f"SELECT id, batch, reasons FROM '{self.folder}/out/bad.parquet'")


@pytest.fixture
def desk(tmp_path) -> Desk:
    return Desk(tmp_path)


def changed(**columns: str) -> str:
    """The good rows with some columns computed otherwise."""
    return f"SELECT * REPLACE ({', '.join(f'{sql} AS {name}' for name, sql in columns.items())}) FROM ({GOOD})"


BETWEEN = {"expect": "column_values_to_be_between", "column": "n", "min_value": 0, "max_value": 500, "why": "counted"}


def test_good_batches_pass_and_are_linked_not_copied(desk):
    """A batch without a bad row costs no second writing, however big it is."""
    desk.batch("2013-01")
    desk.batch("2013-02", changed(id="'l' || n"))
    said = desk.validate(BETWEEN)
    assert (said.failed, said.warnings, said.quarantined, said.quarantine) == ([], [], {}, None)
    assert said.rows == 400
    assert said.expectations == 3  # the key is complete and names one row, besides the stated one
    assert desk.clean("2013-01").samefile(desk.batches["2013-01"])
    assert desk.clean("2013-02").samefile(desk.batches["2013-02"])


def test_bad_rows_are_put_aside_whole_with_every_reason(desk):
    """The quarantine says for each row its batch, what was found, what is allowed and why; the rest stays clean."""
    desk.batch(
        "2013-01",
        changed(n="CASE WHEN id IN ('k3', 'k7') THEN -n ELSE n END", code="CASE WHEN id = 'k7' THEN 'C' ELSE code END"),
    )
    desk.batch("2013-02", changed(id="'l' || n", code="CASE WHEN n = 9 THEN NULL ELSE code END"))
    said = desk.validate(
        BETWEEN,
        {"expect": "column_values_to_match_regex", "column": "code", "regex": "^c[0-3]$"},
        {"expect": "column_values_to_not_be_null", "column": "code", "why": "each trip has one"},
    )
    assert said.failed == []
    assert said.quarantined == {"2013-01": 2, "2013-02": 1}
    between = "column_values_to_be_between n: found {}; min_value 0, max_value 500; counted"
    assert desk.aside() == [
        ("k3", "2013-01", [between.format(-3)]),
        ("k7", "2013-01", [between.format(-7), "column_values_to_match_regex code: found C; regex ^c[0-3]$"]),
        ("l9", "2013-02", ["column_values_to_not_be_null code: found nothing; each trip has one"]),
    ]
    columns = desk.ask(f"DESCRIBE FROM '{said.quarantine}'")
    assert [name for name, *_ in columns] == ["id", "n", "x", "code", "at", "batch", "reasons"]
    assert desk.ask(f"SELECT count(*), min(n) FROM '{desk.clean('2013-01')}'") == [(198, 0)]
    first = desk.ask(f"SELECT list(id) FROM (SELECT id FROM '{desk.clean('2013-01')}' LIMIT 5)")
    assert first == [(["k0", "k1", "k2", "k4", "k5"],)]
    assert any(warning.endswith("found 2 of 400 values, such as -3, -7. Put aside.") for warning in said.warnings)


def test_same_input_same_bytes(desk):
    """A quarantine and a clean batch made again are equal to the last byte."""
    desk.batch("2013-01", changed(n="CASE WHEN n % 50 = 7 THEN -n ELSE n END"))
    digests = set()
    for _ in range(2):
        said = desk.validate(BETWEEN)
        digests.add((file_digest(said.quarantine), file_digest(desk.clean("2013-01")), tuple(said.warnings)))
    assert len(digests) == 1


def test_a_batch_beyond_tolerance_fails_and_nothing_clean_is_written(desk):
    """The sentence names the batch, the share, the tolerance and the reasons; other batches don't hide it."""
    desk.batch("2013-01", changed(n="CASE WHEN n < 20 THEN -1 - n ELSE n END"))
    desk.batch("2013-02", changed(id="'l' || n"))
    said = desk.validate(BETWEEN)
    assert said.failed == [
        "trips 2013-01: 20 of 200 rows are bad (10.0%, tolerated 5.0%): column_values_to_be_between n (20)."
    ]
    assert len(desk.aside()) == 20
    assert not desk.clean("2013-02").exists()


def test_a_batch_all_bad_fails_whatever_the_tolerance(desk):
    desk.batch("2013-01", changed(n="-1 - n"))
    said = desk.validate(BETWEEN, tolerance=1)
    assert said.failed == [
        "trips 2013-01: all 200 rows are bad (100.0%, tolerated 100.0%): column_values_to_be_between n (200)."
    ]


def test_an_empty_batch_fails(desk):
    desk.batch("2013-01")
    desk.batch("2013-02", f"SELECT * FROM ({GOOD}) LIMIT 0")
    assert desk.validate(BETWEEN).failed == ["trips 2013-02 is empty."]
    assert Desk(desk.folder).validate(BETWEEN).failed == ["trips has no new batch."]


def test_a_missing_column_is_named(desk):
    desk.batch("2013-01", f"SELECT * EXCLUDE (n) FROM ({GOOD})")
    with pytest.raises(DataError) as error:
        desk.validate(BETWEEN)
    assert error.value.what == "Source trips lacks n."
    assert error.value.found == "has: id, x, code, at"


def test_a_changed_type_fails_before_rows_are_looked_at(desk):
    """The shape is asked first, so that a column of text is not taken for a column of bad numbers."""
    desk.batch("2013-01", changed(n="n || ' pieces'"))
    said = desk.validate(BETWEEN, {"expect": "column_type_to_be", "column": "n", "type_": "BIGINT"})
    assert said.failed == ["trips: column_type_to_be n is not met (type_ BIGINT): found VARCHAR."]
    assert said.quarantined == {}
    assert said.docs.is_file()


def test_a_type_that_differs_between_batches_fails(desk):
    desk.batch("2013-01")
    desk.batch("2013-02", changed(n="n || ' pieces'"))
    assert desk.validate(BETWEEN).failed == ["trips 2013-02: column n is string, but int64 in 2013-01."]


def test_a_crashed_expectation_is_an_error_and_not_bad_data(desk):
    """Great Expectations says `success: false` of what it could not compute; that must not quarantine anything."""
    desk.batch("2013-01", changed(n="n || ' pieces'"))
    with pytest.raises(DataError) as error:
        desk.validate(BETWEEN)
    assert error.value.what == "The expectation column_values_to_be_between n could not be computed."
    assert "VARCHAR" in error.value.found


def test_columns_are_compared_with_those_expected(desk):
    desk.batch("2013-01", f"SELECT *, 1 AS extra FROM ({GOOD})")
    columns = ["id", "n", "x", "code", "at", "gone"]
    (sentence,) = desk.validate({"expect": "table_columns_to_match_set", "column_set": columns}).failed
    assert sentence.endswith("unexpected: extra; missing: gone.")


def test_of_equal_rows_the_first_stays_and_of_conflicting_ones_none(desk):
    """A row delivered twice is no loss; which of two versions is right can't be told."""
    twice = f"({GOOD} LIMIT 1)"
    conflict = f"(SELECT * REPLACE (n + 1 AS n) FROM ({GOOD}) WHERE id = 'k5')"
    desk.batch("2013-01", f"({GOOD}) UNION ALL {twice} UNION ALL {conflict}")
    desk.batch("2013-02", changed(id="CASE WHEN n < 2 THEN NULL ELSE 'l' || n END"))
    said = desk.validate()
    unique = "column_values_to_be_unique id: found {} in 2 rows; the key names one row"
    assert desk.aside() == [
        ("k5", "2013-01", [unique.format("k5")]),
        ("k0", "2013-01", [unique.format("k0")]),
        ("k5", "2013-01", [unique.format("k5")]),
        (None, "2013-02", ["column_values_to_not_be_null id: found nothing; part of the key"]),
        (None, "2013-02", ["column_values_to_not_be_null id: found nothing; part of the key"]),
    ]
    assert desk.ask(f"SELECT count(*) FROM '{desk.clean('2013-01')}' WHERE id = 'k0'") == [(1,)]
    assert said.failed == []


def test_a_key_of_several_columns_is_unique_together(desk):
    desk.batch("2013-01", f"({GOOD}) UNION ALL (SELECT * REPLACE (-1 AS n) FROM ({GOOD}) WHERE id = 'k5')")
    said = desk.validate(key=["code", "at"])
    assert said.quarantined == {"2013-01": 2}
    assert (
        "compound_columns_to_be_unique code, at: found code c1, at 2013-01-01 05:00:00+00 in 2 rows"
        in desk.aside()[0][2][0]
    )


def test_values_are_looked_up_in_another_table(desk):
    """A foreign key: values that the other table lacks are put aside, empty ones are not."""
    folder = desk.folder / "codes"
    folder.mkdir()
    desk.write("codes/1", "SELECT unnest(['c0', 'c1']) AS code")
    desk.write("codes/2", "SELECT unnest(['c2', NULL]) AS code")
    code = "CASE WHEN n < 3 THEN 'nowhere' WHEN code = 'c3' THEN NULL ELSE code END"
    desk.batch("2013-01", changed(code=code))
    known = {"expect": "column_values_to_be_in_set", "column": "code", "values_of": "codes.code"}
    said = desk.validate(known, references={"codes": folder})
    assert said.quarantined == {"2013-01": 3}
    assert desk.aside()[0][2] == ["column_values_to_be_in_set code: found nowhere; one of codes.code"]
    distinct = {**known, "expect": "column_distinct_values_to_contain_set", "severity": "warning"}
    assert desk.validate(known, distinct, references={"codes": folder}).failed == []
    with pytest.raises(DataError, match="checked against codes"):
        desk.validate(known)


def test_warnings_and_tolerant_expectations_put_nothing_aside(desk):
    """A warning is said with its counts; what passes `mostly` is not even said."""
    desk.batch("2013-01", changed(n="CASE WHEN n < 10 THEN -1 - n ELSE n END"))
    said = desk.validate({**BETWEEN, "severity": "warning"}, {**BETWEEN, "mostly": 0.9})
    assert said.quarantined == {}
    assert said.failed == []
    assert said.warnings == [
        "trips: column_values_to_be_between n is not met (min_value 0, max_value 500; counted): "
        "found 10 of 200 values, such as -1, -2, -3."
    ]


def test_a_critical_expectation_of_the_whole_table_fails(desk):
    desk.batch("2013-01")
    said = desk.validate({"expect": "column_mean_to_be_between", "column": "n", "max_value": 50, "why": "few"})
    assert said.failed == ["trips: column_mean_to_be_between n is not met (max_value 50; few): found 99.5."]


def test_volume_and_freshness_are_held_against_the_as_of(desk):
    """The table of batches has rows, first, last and the hours since last at the as-of."""
    desk.batch("2013-01")
    desk.batch("2013-02", f"SELECT * REPLACE ('l' || n AS id) FROM ({GOOD}) LIMIT 20")
    hours = (AS_OF - (datetime(2013, 1, 1, tzinfo=UTC) + timedelta(hours=199))).total_seconds() / 3600
    said = desk.validate(
        batch_expectations=[
            {"expect": "column_values_to_be_between", "column": "rows", "min_value": 100, "why": "a month"},
            {"expect": "column_min_to_be_between", "column": "hours_since_last", "max_value": hours - 1},
            {"expect": "column_min_to_be_between", "column": "hours_since_last", "max_value": hours + 1},
        ]
    )
    volume, freshness = said.failed
    assert volume.startswith("trips 2013-02: column_values_to_be_between rows is not met (min_value 100; a month)")
    unmet = f"column_min_to_be_between hours_since_last is not met (max_value {hours - 1})"
    assert freshness == f"trips, its batches: {unmet}: found {hours:g}."


def test_a_source_without_time_has_no_freshness(desk):
    desk.batch("all")
    volume = {"expect": "column_values_to_be_between", "column": "rows", "min_value": 100}
    assert desk.validate(time=None, batch_expectations=[volume]).failed == []


def test_data_docs_last_and_nothing_else_is_left_behind(desk, monkeypatch, tmp_path):
    """The report lies where it was asked for, with working links of its own, and no temporary folder stays."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    desk.batch("2013-01", changed(n="CASE WHEN n < 3 THEN -1 ELSE n END"))
    said = desk.validate(BETWEEN, batch_expectations=[{"expect": "table_row_count_to_equal", "value": 1}])
    pages = sorted(said.docs.parent.rglob("*.html"))
    assert said.docs in pages
    index = said.docs.read_text(encoding="utf-8")
    links = set(re.findall(r"['\"]((?:expectations|validations)/[^'\"#?]+\.html)", index))
    assert len(links) == 4  # a suite and its result, for rows and for batches
    assert all((said.docs.parent / link).is_file() for link in links)
    assert any("No two rows have the same id." in page.read_text(encoding="utf-8") for page in pages)
    assert not list(scratch.iterdir())
    assert {path.name for path in (desk.folder / "out").iterdir()} == {"docs", "bad.parquet", "clean"}


def test_more_bad_rows_than_are_listed_fail(desk, monkeypatch):
    """Where the list of bad rows was cut off, no batch can pass by it."""
    monkeypatch.setattr(room, "LISTED", 5)
    desk.batch("2013-01", changed(n="CASE WHEN n < 30 THEN -1 ELSE n END"))
    within, beyond = desk.validate(BETWEEN, tolerance=0.5).failed, desk.validate(BETWEEN, tolerance=0.05).failed
    assert within == []
    assert "more than 11 rows" in beyond[-1]


def test_wrong_arguments_are_an_error_of_the_case(desk):
    desk.batch("2013-01")
    with pytest.raises(CaseError) as error:
        desk.validate({"expect": "column_values_to_be_between", "column": "n"})
    assert "min_value and max_value cannot both be None" in error.value.found


def test_a_full_disk_leaves_no_half_written_file(tmp_path):
    def write() -> None:
        with duckdb.connect() as db, atomic_path(tmp_path / "x") as temporary:
            temporary.symlink_to("/dev/full")
            _copy(db, "FROM range(1000000)", temporary)

    with pytest.raises(Unavailable, match="disk is full"):
        write()
    assert not list(tmp_path.iterdir())


def test_an_unreadable_batch_is_named(desk):
    path = desk.folder / "2013-01.parquet"
    path.write_bytes(b"no parquet")
    desk.batches = {"2013-01": path}
    with pytest.raises(DataError, match="2013-01 of source trips can't be read"):
        desk.validate()
