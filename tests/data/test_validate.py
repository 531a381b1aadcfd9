"""Validation: what is quarantined and why, what fails, what only warns; with Great Expectations on DuckDB."""

from __future__ import annotations

import re
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from tasks.core.errors import CaseError, DataError
from tasks.core.files import file_digest
from tasks.data.config import Source
from tasks.data.results import Validation
from tasks.data.sources import ingest
from tasks.data.tabular import validate as module
from tasks.data.tabular.validate import ValidationPaths, validate
from tasks.data.tabular.validation_run import validate_source

AS_OF = datetime(2013, 2, 1, tzinfo=UTC)
GOOD = "SELECT 'k' || i AS id, i AS n, i / 4.0 AS x, 'c' || (i % 4) AS code, " \
    "TIMESTAMPTZ '2013-01-01 00:00:00+00' + to_hours(i::INTEGER) AS at FROM range(200) r(i)"  # fmt: skip


class Validator:
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
        paths = ValidationPaths(docs=out / "docs", quarantine=out / "bad.parquet", clean=out / "clean")
        return validate("trips", source, self.batches, references=references or {}, as_of=AS_OF, paths=paths)

    def clean(self, name: str) -> Path:
        return self.folder / "out" / "clean" / f"{name}.parquet"

    def query(self, sql: str) -> list[tuple]:
        with duckdb.connect() as db:
            return db.execute(f"SET TimeZone = 'UTC'; {sql}").fetchall()

    def quarantined_rows(self) -> list[tuple]:
        return self.query(f"SELECT id, batch, reasons FROM '{self.folder}/out/bad.parquet'")


@pytest.fixture
def validator(tmp_path) -> Validator:
    return Validator(tmp_path)


def changed(**columns: str) -> str:
    """The good rows with some columns computed otherwise."""
    return f"SELECT * REPLACE ({', '.join(f'{sql} AS {name}' for name, sql in columns.items())}) FROM ({GOOD})"


BETWEEN = {"expect": "column_values_to_be_between", "column": "n", "min_value": 0, "max_value": 500, "why": "counted"}


def test_good_batches_pass_and_are_linked_not_copied(validator):
    """A batch without a bad row costs no second writing, however big it is."""
    validator.batch("2013-01")
    validator.batch("2013-02", changed(id="'l' || n"))
    result = validator.validate(BETWEEN)
    assert (result.failed, result.warnings, result.quarantined, result.quarantine) == ([], [], {}, None)
    assert result.rows == 400
    assert result.expectations == 3  # the key is complete and names one row, besides the stated one
    assert validator.clean("2013-01").samefile(validator.batches["2013-01"])
    assert validator.clean("2013-02").samefile(validator.batches["2013-02"])


def test_bad_rows_are_quarantined_with_every_reason(validator):
    """The quarantine says for each row its batch, what was found, what is allowed and why; the rest stays clean."""
    validator.batch(
        "2013-01",
        changed(n="CASE WHEN id IN ('k3', 'k7') THEN -n ELSE n END", code="CASE WHEN id = 'k7' THEN 'C' ELSE code END"),
    )
    validator.batch("2013-02", changed(id="'l' || n", code="CASE WHEN n = 9 THEN NULL ELSE code END"))
    result = validator.validate(
        BETWEEN,
        {"expect": "column_values_to_match_regex", "column": "code", "regex": "^c[0-3]$"},
        {"expect": "column_values_to_not_be_null", "column": "code", "why": "each trip has one"},
    )
    assert result.failed == []
    assert result.quarantined == {"2013-01": 2, "2013-02": 1}
    between = "column_values_to_be_between n: found {}; min_value 0, max_value 500; counted"
    assert validator.quarantined_rows() == [
        ("k3", "2013-01", [between.format(-3)]),
        ("k7", "2013-01", [between.format(-7), "column_values_to_match_regex code: found C; regex ^c[0-3]$"]),
        ("l9", "2013-02", ["column_values_to_not_be_null code: found nothing; each trip has one"]),
    ]
    columns = validator.query(f"DESCRIBE FROM '{result.quarantine}'")
    assert [name for name, *_ in columns] == ["id", "n", "x", "code", "at", "batch", "reasons"]
    assert validator.query(f"SELECT count(*), min(n) FROM '{validator.clean('2013-01')}'") == [(198, 0)]
    first = validator.query(f"SELECT list(id) FROM (SELECT id FROM '{validator.clean('2013-01')}' LIMIT 5)")
    assert first == [(["k0", "k1", "k2", "k4", "k5"],)]
    assert any(warning.endswith("found 2 of 400 values, such as -3, -7. Quarantined.") for warning in result.warnings)


def test_same_input_same_bytes(validator):
    """A quarantine and a clean batch written again are equal to the last byte."""
    validator.batch("2013-01", changed(n="CASE WHEN n % 50 = 7 THEN -n ELSE n END"))
    digests = set()
    for _ in range(2):
        result = validator.validate(BETWEEN)
        digests.add((file_digest(result.quarantine), file_digest(validator.clean("2013-01")), tuple(result.warnings)))
    assert len(digests) == 1


def test_a_batch_beyond_tolerance_fails_and_nothing_clean_is_written(validator):
    """The sentence names the batch, the share, the tolerance and the reasons; other batches don't hide it."""
    validator.batch("2013-01", changed(n="CASE WHEN n < 20 THEN -1 - n ELSE n END"))
    validator.batch("2013-02", changed(id="'l' || n"))
    result = validator.validate(BETWEEN)
    assert result.failed == [
        "trips 2013-01: 20 of 200 rows are bad (10.0%, tolerated 5.0%): column_values_to_be_between n (20)."
    ]
    assert len(validator.quarantined_rows()) == 20
    assert not validator.clean("2013-02").exists()


def test_a_batch_all_bad_fails_whatever_the_tolerance(validator):
    validator.batch("2013-01", changed(n="-1 - n"))
    result = validator.validate(BETWEEN, tolerance=1)
    assert result.failed == [
        "trips 2013-01: all 200 rows are bad (100.0%, tolerated 100.0%): column_values_to_be_between n (200)."
    ]


def test_an_empty_batch_fails(validator):
    validator.batch("2013-01")
    validator.batch("2013-02", f"SELECT * FROM ({GOOD}) LIMIT 0")
    assert validator.validate(BETWEEN).failed == ["trips 2013-02 is empty."]
    assert Validator(validator.folder).validate(BETWEEN).failed == ["trips has no new batch."]


def test_a_missing_column_is_named(validator):
    validator.batch("2013-01", f"SELECT * EXCLUDE (n) FROM ({GOOD})")
    with pytest.raises(DataError) as error:
        validator.validate(BETWEEN)
    assert error.value.what == "Source trips lacks n."
    assert error.value.found == "has: id, x, code, at"


def test_a_changed_type_fails_before_rows_are_looked_at(validator):
    """The shape is asked first, so that a column of text is not taken for a column of bad numbers."""
    validator.batch("2013-01", changed(n="n || ' pieces'"))
    result = validator.validate(BETWEEN, {"expect": "column_type_to_be", "column": "n", "type_": "BIGINT"})
    assert result.failed == ["trips: column_type_to_be n is not met (type_ BIGINT): found VARCHAR."]
    assert result.quarantined == {}
    assert result.docs.is_file()


def test_a_type_that_differs_between_batches_fails(validator):
    validator.batch("2013-01")
    validator.batch("2013-02", changed(n="n || ' pieces'"))
    assert validator.validate(BETWEEN).failed == ["trips 2013-02: column n is string, but int64 in 2013-01."]


def test_a_crashed_expectation_is_an_error_and_not_bad_data(validator):
    """Great Expectations says `success: false` of what it could not compute; that must not quarantine anything."""
    validator.batch("2013-01", changed(n="n || ' pieces'"))
    with pytest.raises(DataError) as error:
        validator.validate(BETWEEN)
    assert error.value.what == "The expectation column_values_to_be_between n could not be computed."
    assert "VARCHAR" in error.value.found


def test_columns_are_compared_with_those_expected(validator):
    validator.batch("2013-01", f"SELECT *, 1 AS extra FROM ({GOOD})")
    columns = ["id", "n", "x", "code", "at", "gone"]
    (sentence,) = validator.validate({"expect": "table_columns_to_match_set", "column_set": columns}).failed
    assert sentence.endswith("unexpected: extra; missing: gone.")


def test_of_equal_rows_the_first_stays_and_of_conflicting_ones_none(validator):
    """A row delivered twice is no loss; which of two versions is right can't be told."""
    twice = f"({GOOD} LIMIT 1)"
    conflict = f"(SELECT * REPLACE (n + 1 AS n) FROM ({GOOD}) WHERE id = 'k5')"
    validator.batch("2013-01", f"({GOOD}) UNION ALL {twice} UNION ALL {conflict}")
    validator.batch("2013-02", changed(id="CASE WHEN n < 2 THEN NULL ELSE 'l' || n END"))
    result = validator.validate()
    unique = "column_values_to_be_unique id: found {} in 2 rows; the key names one row"
    assert validator.quarantined_rows() == [
        ("k5", "2013-01", [unique.format("k5")]),
        ("k0", "2013-01", [unique.format("k0")]),
        ("k5", "2013-01", [unique.format("k5")]),
        (None, "2013-02", ["column_values_to_not_be_null id: found nothing; part of the key"]),
        (None, "2013-02", ["column_values_to_not_be_null id: found nothing; part of the key"]),
    ]
    assert validator.query(f"SELECT count(*) FROM '{validator.clean('2013-01')}' WHERE id = 'k0'") == [(1,)]
    assert result.failed == []


def test_a_key_of_several_columns_is_unique_together(validator):
    validator.batch("2013-01", f"({GOOD}) UNION ALL (SELECT * REPLACE (-1 AS n) FROM ({GOOD}) WHERE id = 'k5')")
    result = validator.validate(key=["code", "at"])
    assert result.quarantined == {"2013-01": 2}
    assert (
        "compound_columns_to_be_unique code, at: found code c1, at 2013-01-01 05:00:00+00 in 2 rows"
        in validator.quarantined_rows()[0][2][0]
    )


def test_values_are_looked_up_in_another_table(validator):
    """A foreign key: values that the other table lacks are put quarantined_rows, empty ones are not."""
    folder = validator.folder / "codes"
    folder.mkdir()
    validator.write("codes/1", "SELECT unnest(['c0', 'c1']) AS code")
    validator.write("codes/2", "SELECT unnest(['c2', NULL]) AS code")
    code = "CASE WHEN n < 3 THEN 'nowhere' WHEN code = 'c3' THEN NULL ELSE code END"
    validator.batch("2013-01", changed(code=code))
    known = {"expect": "column_values_to_be_in_set", "column": "code", "values_of": "codes.code"}
    result = validator.validate(known, references={"codes": folder})
    assert result.quarantined == {"2013-01": 3}
    assert validator.quarantined_rows()[0][2] == ["column_values_to_be_in_set code: found nowhere; one of codes.code"]
    distinct = {**known, "expect": "column_distinct_values_to_contain_set", "severity": "warning"}
    assert validator.validate(known, distinct, references={"codes": folder}).failed == []
    with pytest.raises(DataError, match="checked against codes"):
        validator.validate(known)


def test_warnings_and_tolerant_expectations_put_nothing_aside(validator):
    """A warning is result with its counts; what passes `mostly` is not even result."""
    validator.batch("2013-01", changed(n="CASE WHEN n < 10 THEN -1 - n ELSE n END"))
    result = validator.validate({**BETWEEN, "severity": "warning"}, {**BETWEEN, "mostly": 0.9})
    assert result.quarantined == {}
    assert result.failed == []
    assert result.warnings == [
        "trips: column_values_to_be_between n is not met (min_value 0, max_value 500; counted): "
        "found 10 of 200 values, such as -1, -2, -3."
    ]


def test_a_critical_expectation_of_the_whole_table_fails(validator):
    validator.batch("2013-01")
    result = validator.validate({"expect": "column_mean_to_be_between", "column": "n", "max_value": 50, "why": "few"})
    assert result.failed == ["trips: column_mean_to_be_between n is not met (max_value 50; few): found 99.5."]


def test_volume_and_freshness_are_held_against_the_as_of(validator):
    """The table of batches has rows, first, last and the hours since last at the as-of."""
    validator.batch("2013-01")
    validator.batch("2013-02", f"SELECT * REPLACE ('l' || n AS id) FROM ({GOOD}) LIMIT 20")
    hours = (AS_OF - (datetime(2013, 1, 1, tzinfo=UTC) + timedelta(hours=199))).total_seconds() / 3600
    result = validator.validate(
        batch_expectations=[
            {"expect": "column_values_to_be_between", "column": "rows", "min_value": 100, "why": "a month"},
            {"expect": "column_min_to_be_between", "column": "hours_since_last", "max_value": hours - 1},
            {"expect": "column_min_to_be_between", "column": "hours_since_last", "max_value": hours + 1},
        ]
    )
    volume, freshness = result.failed
    assert volume.startswith("trips 2013-02: column_values_to_be_between rows is not met (min_value 100; a month)")
    unmet = f"column_min_to_be_between hours_since_last is not met (max_value {hours - 1})"
    assert freshness == f"trips, its batches: {unmet}: found {hours:g}."


def test_a_source_without_time_has_no_freshness(validator):
    validator.batch("all")
    volume = {"expect": "column_values_to_be_between", "column": "rows", "min_value": 100}
    assert validator.validate(time=None, batch_expectations=[volume]).failed == []


def test_data_docs_last_and_nothing_else_is_left_behind(validator, monkeypatch, tmp_path):
    """The report lies where it was asked for, with working links of its own, and no temporary folder stays."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    validator.batch("2013-01", changed(n="CASE WHEN n < 3 THEN -1 ELSE n END"))
    result = validator.validate(BETWEEN, batch_expectations=[{"expect": "table_row_count_to_equal", "value": 1}])
    pages = sorted(result.docs.parent.rglob("*.html"))
    assert result.docs in pages
    index = result.docs.read_text(encoding="utf-8")
    links = set(re.findall(r"['\"]((?:expectations|validations)/[^'\"#?]+\.html)", index))
    assert len(links) == 4  # a suite and its result, for rows and for batches
    assert all((result.docs.parent / link).is_file() for link in links)
    assert any("No two rows have the same id." in page.read_text(encoding="utf-8") for page in pages)
    assert not list(scratch.iterdir())
    assert {path.name for path in (validator.folder / "out").iterdir()} == {"docs", "bad.parquet", "clean"}


def test_more_bad_rows_than_are_listed_fail(validator, monkeypatch):
    """Where the list of bad rows was cut off, no batch can pass by it."""
    monkeypatch.setattr(module, "MAX_BAD_ROWS", 5)
    validator.batch("2013-01", changed(n="CASE WHEN n < 30 THEN -1 ELSE n END"))
    within, beyond = (
        validator.validate(BETWEEN, tolerance=0.5).failed,
        validator.validate(BETWEEN, tolerance=0.05).failed,
    )
    assert within == []
    assert "more than 11 rows" in beyond[-1]


def test_wrong_arguments_are_an_error_of_the_case(validator):
    validator.batch("2013-01")
    with pytest.raises(CaseError) as error:
        validator.validate({"expect": "column_values_to_be_between", "column": "n"})
    assert "min_value and max_value cannot both be None" in error.value.found


def test_an_unreadable_batch_is_named(validator):
    path = validator.folder / "2013-01.parquet"
    path.write_bytes(b"no parquet")
    validator.batches = {"2013-01": path}
    with pytest.raises(DataError, match="2013-01 of source trips can't be read"):
        validator.validate()


def test_rejected_and_bad_rows_count_together(tmp_path):
    """FAULTS 31: records rejected when read and rows quarantined are held against one tolerance, and told."""
    (tmp_path / "x.csv").write_text("id,x\n1,1\n2,2,2\n3,30\n4,4\n")
    expected = [{"expect": "column_values_to_be_between", "column": "x", "max_value": 9}]
    values = {"uri": "file://x.csv", "key": ["id"], "tolerance": 0.5, "expectations": expected}
    for tolerance, passes in ((0.5, True), (0.4, False)):
        source = Source.model_validate({**values, "tolerance": tolerance})
        ingestions = {"x": ingest("x", source, tmp_path, raw=tmp_path / "raw")}
        moment = datetime(2020, 1, 1, tzinfo=UTC)
        if passes:
            validated = validate_source(
                "toy", "x", {"x": source}, ingestions=ingestions, as_of=moment, state=tmp_path / "state"
            )
            assert (validated.rows, validated.quarantined) == (2, 2)
            assert "line 3" in validated.validation.warnings[-1]
        else:
            with pytest.raises(DataError, match="2 records are rejected or bad"):
                validate_source("toy", "x", {"x": source}, ingestions=ingestions, as_of=moment, state=tmp_path / "s")
