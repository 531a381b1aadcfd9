"""Promise: a model of a stranger that is a bomb is refused by what it declares, before it is unpacked."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from tasks.core.errors import DataError
from tasks.train.tabular.imported import import_model
from tasks.train.tabular.model_file import import_skops, read
from tests.train.frames import BY_HASH, VALUES, boosting, diabetes, frame_of, origin_of

MB = 1 << 20


@pytest.fixture
def members(tmp_path: Path) -> dict[str, bytes]:
    """What a whole model is made of."""
    import_skops().dump(Ridge().fit(np.ones((4, 2)), np.ones(4)), tmp_path / "whole.skops")
    with zipfile.ZipFile(tmp_path / "whole.skops") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def found(path: Path) -> str:
    tracemalloc.start()
    with pytest.raises(DataError) as error:
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 150 * MB
    tracemalloc.stop()
    return error.value.found


def npy(shape: Any, kind: str = "<f8", content: bytes = b"") -> bytes:
    """An array whose header says what it likes."""
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def array_of(members: dict[str, bytes]) -> str:
    return next(name for name in members if name.endswith(".npy"))


def test_a_whole_model_is_read(members: dict[str, bytes], tmp_path: Path):
    """Compressed or not."""
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        assert read(written(tmp_path / "model.skops", members, method)).n_features_in_ == 2


def test_a_model_that_unpacks_to_too_much_is_refused(members: dict[str, bytes], tmp_path: Path):
    """One that declares it: 100 MB of zeros in 100 kB."""
    bomb = members | {"bomb.npy": npy((100 * MB // 8,), content=bytes(100 * MB))}
    assert "when unpacked" in found(written(tmp_path / "model.skops", bomb))


def test_a_model_that_declares_less_than_it_unpacks_to_is_refused(members: dict[str, bytes], tmp_path: Path):
    """No more than what is declared is ever read."""
    path = written(tmp_path / "model.skops", members | {"bomb.npy": npy((8,), content=bytes(100 * MB))})
    content = bytearray(path.read_bytes())
    for at in (content.rindex(b"bomb.npy") - 46 + 24, content.index(b"bomb.npy") - 30 + 22):
        content[at : at + 4] = struct.pack("<I", 192)
    path.write_bytes(content)
    assert found(path)


@pytest.mark.parametrize(
    "shape",
    [(2**40,), (2**62, 2**62), (-1,), (2**31, 0, 5), "('a',)", "(1,) * 99", "[" * 3000],
    ids=lambda s: str(s)[:20],
)
def test_an_array_is_as_large_as_its_header_says(shape: Any, members: dict[str, bytes], tmp_path: Path):
    """Before memory is taken for it."""
    members[array_of(members)] = npy(shape, content=bytes(64))
    assert found(written(tmp_path / "model.skops", members))


@pytest.mark.parametrize("kind", ["|O", "<f99", "|V1000000000000", "|S2147483647", "no kind"])
def test_an_array_of_an_odd_kind_is_refused(kind: str, members: dict[str, bytes], tmp_path: Path):
    """Objects are pickles."""
    members[array_of(members)] = npy((2,), kind, bytes(64))
    assert found(written(tmp_path / "model.skops", members))


def test_a_sparse_array_that_is_a_bomb_is_refused(members: dict[str, bytes], tmp_path: Path):
    """It is an archive in the archive."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", npy((100 * MB // 8,), content=bytes(100 * MB)))
    assert "when unpacked" in found(written(tmp_path / "model.skops", members | {"sparse.npz": inner.getvalue()}))


def deep(levels: int) -> bytes:
    return b'{"__loader__": "ListNode", "content": [' * levels + b"]}" * levels


@pytest.mark.parametrize(
    "schema", [deep(500), deep(50_000), b"[]", b"null", b"{", b'"x"', b"\xff", b" " * (17 * MB)], ids=len
)
def test_a_schema_that_is_none_is_refused(schema: bytes, members: dict[str, bytes], tmp_path: Path):
    """Too deep, too long, or something else."""
    members["schema.json"] = schema
    assert found(written(tmp_path / "model.skops", members))


def test_a_model_of_many_files_is_refused(members: dict[str, bytes], tmp_path: Path):
    """Each costs memory, however small it is."""
    many = members | {f"{n}.bin": b"" for n in range(20_001)}
    with pytest.raises(DataError, match="at most 20,000"):
        read(written(tmp_path / "model.skops", many, zipfile.ZIP_STORED))


def test_an_encrypted_or_oddly_compressed_model_is_refused(members: dict[str, bytes], tmp_path: Path):
    """Nobody is asked for a password."""
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        assert "compressed by method" in found(written(tmp_path / "model.skops", members, method))
    path = written(tmp_path / "model.skops", members)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert "encrypted" in found(path)


def test_one_name_twice_is_refused(members: dict[str, bytes], tmp_path: Path):
    """Else one would be checked, and the other read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = written(tmp_path / "model.skops", members)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("schema.json", b"{}")
    assert "one name" in found(path)


@pytest.mark.parametrize("path", [Path("/dev/zero"), Path("/dev"), Path("nowhere.skops")])
def test_what_is_no_file_is_not_read(path: Path, state: Path):
    """A device has no end."""
    table = diabetes()
    with pytest.raises(DataError):
        import_model(
            origin_of("brought", state), path, frame_of(table, state / "frames"), VALUES, boosting((), BY_HASH), ()
        )


def test_json_that_names_other_types_is_refused(members: dict[str, bytes], tmp_path: Path):
    """Only types on the list are made."""
    schema = json.loads(members["schema.json"])
    schema["__class__"], schema["__module__"] = "system", "os"
    members["schema.json"] = json.dumps(schema).encode()
    assert found(written(tmp_path / "model.skops", members))
