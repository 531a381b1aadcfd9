"""Sources in Delta Lake tables, written by its own library."""

from __future__ import annotations

import importlib.util
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from tasks.core.errors import DataError
from tasks.data.config import Source
from tasks.data.origins.fetch import check_source, fetch_source
from tasks.data.origins.results import Fetched

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("deltalake") is None, reason="the extra delta is not installed"
)
SOURCE = Source(uri="file://sales", key=("id",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, 1, 2, 3)
    return tmp_path


def write(folder: Path, *numbers: int) -> None:
    from deltalake import write_deltalake

    table = pa.table({"id": numbers, "price": [Decimal("1.50")] * len(numbers), "shop": ["x"] * len(numbers)})
    write_deltalake(folder / "sales", table, mode="append", partition_by=["shop"])


def rows(fetched: Fetched) -> list[tuple[object, ...]]:
    return duckdb.sql(f"SELECT id, price, shop FROM read_parquet('{fetched.paths[0]}') ORDER BY id").fetchall()


def test_a_table_is_read_at_its_last_version(folder: Path):
    """Decimals stay exact, a deleted row is gone though its file lies there, and the version is recorded."""
    from deltalake import DeltaTable

    check_source(SOURCE, folder)
    first = fetch_source(SOURCE, folder, folder / "cache")
    assert rows(first)[0] == (1, Decimal("1.50"), "x")
    DeltaTable(folder / "sales").delete("id = 2")
    write(folder, 4)
    second = fetch_source(SOURCE, folder, folder / "cache")
    assert [row[0] for row in rows(second)] == [1, 3, 4]
    assert (first.version[-2:], second.version[-2:]) == (" 0", " 2")
    assert first.digest != second.digest


def test_an_unchanged_version_is_not_read_again(folder: Path):
    """The version alone tells it; a new version of equal rows gives the same rows."""
    from deltalake import DeltaTable

    first = fetch_source(SOURCE, folder, folder / "cache")
    time = first.paths[0].stat().st_mtime_ns
    assert fetch_source(SOURCE, folder, folder / "cache") == first
    assert first.paths[0].stat().st_mtime_ns == time
    DeltaTable(folder / "sales").delete("id > 100")
    write(folder)
    assert rows(fetch_source(SOURCE, folder, folder / "cache")) == rows(first)


def test_a_broken_table_is_refused(folder: Path):
    """A log without a version is no table, and the last fetch stays."""
    first = fetch_source(SOURCE, folder, folder / "cache")
    for path in (folder / "sales" / "_delta_log").glob("*.json"):
        path.unlink()
    with pytest.raises(DataError, match="no Delta table"):
        fetch_source(SOURCE, folder, folder / "cache")
    assert first.paths[0].is_file()
