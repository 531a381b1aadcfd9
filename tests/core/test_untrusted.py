"""Promise: what a stranger's archive or text declares is checked before it is read; each fault is one error of ours."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from benchmarks.fuzz_files import MOST_MEMORY, fuzz
from flows.case import load_case
from services.runtime.archive import read_metadata, unpack
from tasks.core.duckdb import connect
from tasks.core.errors import CaseError, DataError
from tasks.core.untrusted import check_zip, read_json_object, reading_untrusted
from tasks.core.yaml_file import MAX_DEPTH, load_yaml
from tasks.data.config import Source
from tasks.data.reading.files import read_files

MB = 1 << 20


def test_each_damaged_file_raises_one_data_error():
    """Ten seconds of what `python -m benchmarks.fuzz_files` does for ten minutes."""
    ends, grown = fuzz(10)
    assert {kind for kind, _ in ends} == {"skops", "safetensors", "gguf", "backup", "zip", "yaml", "json"}
    assert sum(count for (_, end), count in ends.items() if end == "refused") > 10
    assert grown < MOST_MEMORY


def zipped(path: Path, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("rows.csv", content)
    return path


def source(path: Path) -> str:
    """What is found when a file is read as a source."""
    declared = Source(uri=f"file://{path}", key=("id",))
    with connect() as db, pytest.raises(DataError) as error:
        read_files(db, "bank", declared, files=[path], work=path.parent)
    assert not list(path.parent.glob("*.csv"))
    return error.value.found


def test_a_zip_bomb_is_refused_by_what_it_declares(tmp_path: Path):
    """Nothing of it is unpacked."""
    bomb = zipped(tmp_path / "bomb.zip", b"0" * 100 * MB)
    begin = time.thread_time()
    assert "104,857,600 bytes when unpacked" in source(bomb)
    assert time.thread_time() - begin < 0.5


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_of_odd_compression_is_refused(method: int, tmp_path: Path):
    """Only what everybody writes is read."""
    assert "compressed by method" in source(zipped(tmp_path / "odd.zip", b"a,b\n1,2\n", method))


def test_an_encrypted_zip_is_refused(tmp_path: Path):
    """Its flag says so; no password is asked for."""
    path = zipped(tmp_path / "locked.zip", b"a,b\n1,2\n")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert "encrypted" in source(path)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"no zip"])
def test_an_empty_zip_is_refused(content: bytes, tmp_path: Path):
    """There is no first file to take."""
    path = tmp_path / "empty.zip"
    path.write_bytes(content)
    assert source(path)


YAMLS = {
    "deep flow": "[" * 20_000,
    "deep flow, closed": "a: " + "[" * 20_000 + "]" * 20_000,
    "deep mappings": "{a: " * 20_000,
    "deep blocks": "\n".join(" " * n + "a:" for n in range(2_000)),
    "deep sequences": "- " * 20_000,
    "just too deep": "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
    "laughs": "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)),
    "laughs in mappings": "a0: &a0 {x: x}\n"
    + "".join(f"a{n}: &a{n} {{x: *a{n - 1}, y: *a{n - 1}}}\n" for n in range(1, 40)),
    "merged laughs": "a0: &a0 {x: 1}\n"
    + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40)),
    "itself": "a: &a [*a]",
    "long": "a: " + "x" * 5_000_000,
    "key that is a list": "? [a, b]\n: 1",
    "key that is a mapping": "{{a: b}: c}",
    "a tag that runs code": "!!python/object/apply:os.system [true]",
    "a number of many digits": "a: " + "9" * 10_000,
    "an odd time": "a: 2013-99-99",
    "control": "a: \x00",
}


@pytest.mark.parametrize("text", YAMLS.values(), ids=YAMLS)
def test_a_case_of_hostile_yaml_is_one_error(text: str, tmp_path: Path):
    """Neither a traceback nor seconds, nor much memory."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "case.yaml").write_text(text)
    tracemalloc.start()
    begin = time.thread_time()
    with pytest.raises(CaseError) as error:
        load_case("bad", tmp_path)
    assert time.thread_time() - begin < 5
    assert tracemalloc.get_traced_memory()[1] < 100 * MB
    tracemalloc.stop()
    assert len(str(error.value)) < 2_000


def test_anchors_that_people_use_are_read():
    """Only what unfolds without measure is refused."""
    assert load_yaml("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}") == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}


@pytest.mark.parametrize("content", [b"[1]", b"{", b'{"a":' * 50_000, b"\xff", b"x" * (65 * MB)], ids=len)
def test_a_json_file_is_an_object_or_one_error(content: bytes, tmp_path: Path):
    """Configurations of models and adapters."""
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(DataError):
        read_json_object(path)


def tarred(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    path.write_bytes(gzip.compress(buffer.getvalue(), 1))
    return path


FACTS = tarfile.TarInfo("backup.json"), b'{"format": 1}'


def lying(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """The header of a member that says it is so large."""
    member = tarfile.TarInfo("state/large")
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
def test_a_backup_that_declares_more_than_there_is_room_for_is_refused(kind: bytes, tmp_path: Path):
    """Of a file, or of a header that is read at once; before anything is written."""
    path = tmp_path / "backup.tar.gz"
    plain = gzip.decompress(tarred(path, FACTS).read_bytes())[:1024]
    path.write_bytes(gzip.compress(plain + lying(2**50, kind) + bytes(4096)))
    target = tmp_path / "state"
    target.mkdir()
    tracemalloc.start()
    with pytest.raises(DataError):
        unpack(path, {"state": target})
    assert tracemalloc.get_traced_memory()[1] < 10 * MB
    tracemalloc.stop()
    assert not list(target.iterdir())


@pytest.mark.parametrize(
    "facts",
    [b"[]", b'{"format": "x"}', b'"format"', b"{", pytest.param(b'{"format":' * 9_000, id="deep"), b"null"],
)
def test_a_backup_that_says_nonsense_of_itself_is_refused(facts: bytes, tmp_path: Path):
    """One error, whatever its first file holds."""
    path = tarred(tmp_path / "backup.tar.gz", (tarfile.TarInfo("backup.json"), facts))
    with pytest.raises(DataError):
        read_metadata(path)


def test_the_list_of_a_backup_is_an_object(tmp_path: Path):
    """Else its files can't be held against it."""
    path = tarred(tmp_path / "b.tar.gz", FACTS, (tarfile.TarInfo("digests.json"), json.dumps([1]).encode()))
    with pytest.raises(DataError):
        unpack(path, {"state": tmp_path})


def test_a_zip_whose_end_lies_is_one_error(tmp_path: Path):
    """Where its directory lies, how long it is and how many files it has: any byte of it may be wrong."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("a.csv", "x,y\n1,2\n")
    content, refused = whole.getvalue(), 0
    for position in range(len(content) - 22, len(content)):
        for value in (0, 1, 127, 255):
            path = tmp_path / "a.zip"
            path.write_bytes(content[:position] + bytes([value]) + content[position + 1 :])
            try:
                with reading_untrusted("A zip can't be read.", path, allowed="a zip"), zipfile.ZipFile(path) as archive:
                    check_zip(archive, path.stat().st_size, 1000)
                    for member in archive.infolist():
                        archive.extract(member, tmp_path)
            except DataError:
                refused += 1
    assert refused > 40
