"""What is fetched lands in batches, and is recorded beside them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tasks.core.duckdb import connect
from tasks.core.errors import DataError
from tasks.data.config import Source
from tasks.data.origins.fetch import fetch_source
from tasks.data.reading.files import read_files
from tasks.data.sources import Ingestion, filter_as_of, ingest
from tests.data.origins.sqlite import add_rows

FILES = Source(uri="file://rows", key=("id",), time="at")
SQL = "SELECT id, known::TIMESTAMPTZ AS known FROM raw"
TABLE = Source(uri="sqlite:///rows.db", query="SELECT id, at AS known FROM t", key=("id",), time="known", sql=SQL)


def add_file(folder: Path, month: int) -> None:
    (folder / "rows").mkdir(exist_ok=True)
    (folder / "rows" / f"{month}.csv").write_text(f"id,at\n{month},2024-{month:02}-01T00:00:00Z\n")


def land(source: Source, folder: Path) -> Ingestion:
    return ingest("rows", source, folder, raw=folder / "raw")


def ids(*paths: Path) -> list[Any]:
    return [row[0] for path in paths for row in duckdb.sql(f"SELECT id FROM read_parquet('{path}')").fetchall()]


def test_a_new_file_is_new_rows(tmp_path: Path):
    """The months that were there land as equal bytes, and the line names the file."""
    add_file(tmp_path, 1)
    first = land(FILES, tmp_path)
    add_file(tmp_path, 2)
    second = land(FILES, tmp_path)
    assert ids(*(batch.path for batch in second.batches)) == [1, 2]
    assert second.batches[0].digest == first.batches[0].digest
    assert second.summary.endswith("1 new (2.csv)")
    assert "new" not in land(FILES, tmp_path).summary


def test_a_column_that_is_missing_in_one_file(tmp_path: Path):
    """With declared columns it is an error that names the file; without, it is null there."""
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.csv").write_text("id,x\n1,2\n")
    (tmp_path / "rows" / "b.csv").write_text("id\n2\n")
    source = Source(uri="file://rows", key=("id",))
    (batch,) = land(source, tmp_path).batches
    assert duckdb.sql(f"SELECT id, x FROM read_parquet('{batch.path}') ORDER BY id").fetchall() == [(1, 2), (2, None)]
    declared = Source.model_validate({**source.model_dump(), "columns": {"id": "integer", "x": "integer"}})
    fetched = fetch_source(declared, tmp_path, tmp_path / "cache")
    with pytest.raises(DataError, match=r"b\.csv lacks x"), connect() as db:
        read_files(db, "rows", declared, files=fetched.paths, work=tmp_path)


def test_where_rows_came_from_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Address without secrets, files with digests, last known time and moment of the fetch lie beside the batches."""
    monkeypatch.setenv("ROWS_FOLDER", str(tmp_path))
    add_rows(tmp_path / "rows.db", [(1, "2024-01-01T00:00:00Z", None)])
    land(TABLE.model_copy(update={"uri": "sqlite:///$ROWS_FOLDER/rows.db"}), tmp_path)
    record = json.loads((tmp_path / "raw" / "rows" / "landing.json").read_text())["fetched"]
    assert (record["uri"], record["version"]) == ("sqlite:///$ROWS_FOLDER/rows.db", "2024-01-01T00:00:00Z")
    assert len(record["files"][0]["digest"]) == 64
    assert datetime.fromisoformat(record["at"]) <= datetime.now(UTC)


def test_the_past_of_a_database_can_be_read_again(tmp_path: Path):
    """Rows that became known later are fetched, and are not part of what was known at a moment."""
    source = TABLE.model_copy(update={"known_at": "known"})
    add_rows(tmp_path / "rows.db", [(1, "2024-01-01T00:00:00Z", None)])
    as_of = datetime(2024, 1, 15, tzinfo=UTC)
    (first,) = land(source, tmp_path).batches
    assert filter_as_of(first, source, as_of, tmp_path / "known.parquet") == first.path
    assert ids(first.path) == [1]
    add_rows(tmp_path / "rows.db", [(2, "2024-01-20T00:00:00Z", None), (3, "2024-02-01T00:00:00Z", None)])
    january, february = land(source, tmp_path).batches
    known = filter_as_of(january, source, as_of, tmp_path / "known.parquet")
    assert known is not None
    assert ids(january.path) == [1, 2]
    assert ids(known) == [1]
    assert filter_as_of(february, source, as_of, tmp_path / "none.parquet") is None


def test_a_source_that_fails_leaves_the_last_batches(tmp_path: Path):
    """No batch and no record changes when the address has nothing any more."""
    add_file(tmp_path, 1)
    land(FILES, tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "raw").rglob("*") if path.is_file()}
    (tmp_path / "rows").rename(tmp_path / "away")
    with pytest.raises(DataError, match="missing"):
        land(FILES, tmp_path)
    assert {path: path.read_bytes() for path in (tmp_path / "raw").rglob("*") if path.is_file()} == before
