"""Sources in files, folders and glob patterns: what changes is read again, and named."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb
import pytest

from tasks.core.errors import DataError
from tasks.data.config import Source
from tasks.data.origins.fetch import check_source, fetch_source


def source(uri: str) -> Source:
    return Source(uri=uri, key=("id",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for month in ("jan", "feb"):
        write(tmp_path / "rows" / f"{month}.csv", f"id\n{month}\n")
    return tmp_path


def write(path: Path, text: str, age: int = 60) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age))
    return path


@pytest.mark.parametrize(
    "uri", ["file://rows", "file://rows/", "file://rows/*.csv", "file://r*/*.csv", "file://**/*.csv"]
)
def test_a_folder_or_a_pattern_names_its_files(folder: Path, uri: str):
    """Files come in the order of their names, and hidden ones and markers are left out."""
    write(folder / "rows" / "_SUCCESS", "")
    write(folder / "rows" / ".part.csv", "")
    fetched = fetch_source(source(uri), folder, folder / "cache")
    assert [path.name for path in fetched.paths] == ["feb.csv", "jan.csv"]


def test_new_changed_and_lost_files_are_named(folder: Path):
    """A new file is new rows; a changed old file changes the digest; both are named."""
    first = fetch_source(source("file://rows"), folder, folder / "cache")
    assert first.changes == ""
    assert fetch_source(source("file://rows"), folder, folder / "cache") == first
    write(folder / "rows" / "mar.csv", "id\nmar\n")
    assert fetch_source(source("file://rows"), folder, folder / "cache").changes == "1 new (mar.csv)"
    write(folder / "rows" / "jan.csv", "id\nJAN\n")
    (folder / "rows" / "feb.csv").unlink()
    last = fetch_source(source("file://rows"), folder, folder / "cache")
    assert last.changes == "1 changed (jan.csv), 1 gone (feb.csv)"
    assert last.digest != first.digest


def test_equal_files_in_another_folder_are_read_there(folder: Path, tmp_path: Path):
    """Each pushed commit has a folder of its own, and an old one is removed."""
    before = fetch_source(source("file://rows"), folder, tmp_path / "cache")
    moved = folder / "commit"
    moved.mkdir()
    (folder / "rows").rename(moved / "rows")
    fetched = fetch_source(source("file://rows"), moved, tmp_path / "cache")
    assert (fetched.digest, fetched.changes, fetched.at) == (before.digest, "", before.at)
    assert fetched.paths == [moved / "rows" / "feb.csv", moved / "rows" / "jan.csv"]


def test_a_file_changed_within_its_second_is_read_again(folder: Path):
    """Size and time stand for the content only once the time lies back."""
    write(folder / "rows.csv", "id\na\n", age=0)
    first = fetch_source(source("file://rows.csv"), folder, folder / "cache")
    times = (folder / "rows.csv").stat()
    (folder / "rows.csv").write_text("id\nb\n")
    os.utime(folder / "rows.csv", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fetch_source(source("file://rows.csv"), folder, folder / "cache").digest != first.digest


@pytest.mark.parametrize("name", ["rows [1].csv", "a*b.csv", "$HOME.csv", "what?.csv", "a#1.csv", "é.csv"])
def test_a_file_of_any_name_is_that_file(tmp_path: Path, name: str):
    """A file that exists by the name is meant, whatever a pattern or a variable would make of it."""
    write(tmp_path / name, "id\na\n")
    write(tmp_path / "rows 1.csv", "id\nb\n")
    assert fetch_source(source(f"file://{name}"), tmp_path, tmp_path / "cache").paths == [tmp_path / name]


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("file://none.csv", "missing"),
        ("file://rows/*.parquet", "has no file"),
        ("file://.", "several kinds"),
    ],
)
def test_what_is_wrong_with_an_address_is_named(folder: Path, uri: str, says: str):
    """A missing file, an empty pattern and a folder of several kinds are refused, by the check too."""
    write(folder / "readme.md", "words")
    for call in (
        lambda: fetch_source(source(uri), folder, folder / "cache"),
        lambda: check_source(source(uri), folder),
    ):
        with pytest.raises(DataError, match=says):
            call()


def test_folders_of_a_parquet_data_set_are_columns(tmp_path: Path):
    """year=2024 is an integer, month=01 stays text, and an unchanged file is copied once."""
    for month in ("01", "02"):
        path = tmp_path / "rows" / "year=2024" / f"month={month}" / "part-0.parquet"
        path.parent.mkdir(parents=True)
        duckdb.sql(f"SELECT {int(month)} AS id").write_parquet(str(path))
    fetched = fetch_source(source("file://rows"), tmp_path, tmp_path / "cache")
    rows = [duckdb.sql(f"FROM read_parquet('{path}', hive_partitioning = false)").fetchall() for path in fetched.paths]
    assert rows == [[(1, 2024, "01")], [(2, 2024, "02")]]
    times = [path.stat().st_mtime_ns for path in fetched.paths]
    assert fetch_source(source("file://rows"), tmp_path, tmp_path / "cache") == fetched
    assert [path.stat().st_mtime_ns for path in fetched.paths] == times
