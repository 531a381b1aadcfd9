"""An archive is whole or not there, consistent under writers, and brought back byte for byte or not at all."""

from __future__ import annotations

import gzip
import io
import json
import os
import sqlite3
import tarfile
import threading
from contextlib import closing
from pathlib import Path

import pytest

from services.runtime.archive import DIGESTS, FORMAT, METADATA, pack, read_metadata, unpack
from tasks.core.errors import DataError, InputError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "place"
    (folder / "deep" / "folder").mkdir(parents=True)
    (folder / "deep" / "folder" / "bytes").write_bytes(os.urandom(300_000))
    (folder / "empty").touch()
    (folder / "run.sh").write_text("true")
    (folder / "run.sh").chmod(0o750)
    (folder / "same").hardlink_to(folder / "run.sh")
    (folder / "left.log").write_text("out")
    return folder


@pytest.fixture
def archive(tmp_path: Path, place: Path) -> Path:
    archive_path = tmp_path / "made.tar.gz"
    assert pack(archive_path, {"place": place}, {"made": "here"}, lambda name: name.endswith(".log")) == 4
    return archive_path


def test_what_was_packed_comes_back(archive, place, tmp_path):
    """Bytes, modes, moments and links; what is left out is not there; the file is its owner's alone."""
    assert read_metadata(archive) == {"format": FORMAT, "made": "here"}
    back = tmp_path / "back"
    unpack(archive, {"place": back})
    found = {path.relative_to(back): path for path in back.rglob("*") if path.is_file()}
    assert {str(name) for name in found} == {"deep/folder/bytes", "empty", "run.sh", "same"}
    for name, path in found.items():
        there = place / name
        assert path.read_bytes() == there.read_bytes()
        assert path.stat().st_mode == there.stat().st_mode
        assert abs(path.stat().st_mtime - there.stat().st_mtime) < 1
    assert (back / "same").samefile(back / "run.sh")
    assert archive.stat().st_mode & 0o077 == 0


def test_a_database_is_copied_as_of_one_moment(tmp_path):
    """While somebody moves money from one row to the other, the copy has all of it."""
    place = tmp_path / "place"
    place.mkdir()
    with closing(sqlite3.connect(place / "bank.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE purse (owner PRIMARY KEY, money, filler)")
        db.executemany("INSERT INTO purse VALUES (?, 1000, ?)", [(number, "x" * 3000) for number in range(500)])
    ends, moved = threading.Event(), []

    def pay() -> None:
        with closing(sqlite3.connect(place / "bank.db", isolation_level=None, timeout=30)) as db:
            while not ends.is_set():
                db.execute("BEGIN IMMEDIATE")
                db.execute("UPDATE purse SET money = money - 1 WHERE owner = ?", (len(moved) % 500,))
                db.execute("UPDATE purse SET money = money + 1 WHERE owner = ?", ((len(moved) + 250) % 500,))
                db.execute("COMMIT")
                moved.append(1)

    payer = threading.Thread(target=pay)
    payer.start()
    try:
        for number in range(5):
            archive_path, back = tmp_path / f"{number}.tar.gz", tmp_path / str(number)
            pack(archive_path, {"place": place}, {}, lambda name: name.endswith(("-wal", "-shm")), ["place/bank.db"])
            unpack(archive_path, {"place": back})
            assert [path.name for path in back.iterdir()] == ["bank.db"]
            with closing(sqlite3.connect(back / "bank.db")) as copy:
                assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                assert copy.execute("SELECT sum(money), count(*) FROM purse").fetchone() == (500_000, 500)
    finally:
        ends.set()
        payer.join()
    assert len(moved) > 5


def test_what_comes_first_is_read_before_the_rest_is_listed(tmp_path, monkeypatch):
    """A file that is named by what was read first is in the archive, though it came after the packing began."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "index.jsonl").write_text("names later")
    real = tarfile.TarFile.addfile

    def then_another(self, member, *rest):
        real(self, member, *rest)
        if member.name == "place/index.jsonl":
            (place / "a-later-one").write_text("it is named")
            (place / "index.jsonl").write_text("")  # a log that was emptied meanwhile

    monkeypatch.setattr(tarfile.TarFile, "addfile", then_another)
    pack(tmp_path / "made", {"place": place}, {}, lambda name: False, ["place/*.jsonl"])
    unpack(tmp_path / "made", {"place": tmp_path / "back"})
    assert (tmp_path / "back" / "a-later-one").exists()
    assert (tmp_path / "back" / "index.jsonl").read_text() == "names later"


@pytest.mark.parametrize("harm", ["cut short", "cut at a member", "a byte differs", "one is missing", "none"])
def test_a_damaged_archive_is_refused(archive, tmp_path, harm):
    """Cut short, changed by a byte, a file taken out, or no archive at all."""
    if harm == "cut short":
        archive.write_bytes(archive.read_bytes()[:-50_000])
    elif harm == "none":
        archive.write_bytes(b"something else")
    else:
        rewrite(archive, harm)
    with pytest.raises(DataError, match="archive is damaged"):
        unpack(archive, {"place": tmp_path / "back"})


@pytest.mark.parametrize("name", ["place/../../outside", "/outside", "elsewhere/x", "place"])
def test_nothing_is_written_outside_the_places(tmp_path, name):
    """A name that leaves its place is refused, whatever the digests say."""
    write(tmp_path / "made", {METADATA: b'{"format": 1}', name: b"x", DIGESTS: b"{}"})
    with pytest.raises(DataError, match="is outside the places"):
        unpack(tmp_path / "made", {"place": tmp_path / "in" / "back"})
    assert not list(tmp_path.rglob("outside"))


def test_a_newer_format_is_refused(tmp_path):
    """With the commit that can read it."""
    write(tmp_path / "made", {METADATA: json.dumps({"format": FORMAT + 1, "commit": "abc"}).encode()})
    with pytest.raises(InputError, match=r"newer version(.|\n)*abc"):
        read_metadata(tmp_path / "made")


def test_a_failed_packing_leaves_nothing(tmp_path, place):
    """No half archive, and nothing beside it."""
    before = sorted(tmp_path.iterdir())

    def fails(name: str) -> bool:
        raise OSError("pulled out")

    with pytest.raises(OSError, match="pulled out"):
        pack(tmp_path / "made", {"place": place}, {}, fails)
    assert sorted(tmp_path.iterdir()) == before


def rewrite(archive: Path, harm: str) -> None:
    """The same archive, well formed, with one thing wrong."""
    with tarfile.open(archive) as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar if m.isreg()}
    if harm == "cut at a member":
        del members[DIGESTS]
    elif harm == "one is missing":
        del members["place/empty"]
    else:
        content = members["place/deep/folder/bytes"]
        members["place/deep/folder/bytes"] = bytes([content[0] ^ 1]) + content[1:]
    write(archive, members)


def write(archive: Path, members: dict[str, bytes]) -> None:
    with gzip.open(archive, "wb") as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
