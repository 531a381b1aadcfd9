"""Promise: a model file whose header lies is refused by the header alone, with one error and without much memory."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from tasks.core.errors import DataError
from tasks.language.gguf_reader import GgufFile
from tasks.language.safetensors_header import read_shapes

HUGE = 2**62


def refused(read: Any, path: Path) -> str:
    """What is found; a few MB are enough to find it."""
    tracemalloc.start()
    with pytest.raises(DataError) as error:
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 30 << 20
    tracemalloc.stop()
    assert error.value.where == str(path)
    return error.value.found


def tensors(path: Path, header: Any, weights: int = 64, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + bytes(weights))
    return path


def of(shape: list, begin: Any, end: Any, kind: str = "F32") -> dict:
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


HEADERS = {
    "beyond the file": {"a": of([HUGE], 0, 4 * HUGE)},
    "another shape": {"a": of([4, 5], 0, 64)},
    "another type": {"a": of([16], 0, 64, "F64")},
    "no type there is": {"a": of([16], 0, 64, "F7")},
    "overlapping": {"a": of([16], 0, 64), "b": of([8], 32, 64)},
    "the same twice": {"a": of([16], 0, 64), "b": of([16], 0, 64)},
    "a gap": {"a": of([4], 0, 16), "b": of([8], 32, 64)},
    "too little": {"a": of([8], 0, 32)},
    "backwards": {"a": of([-16], 64, 0)},
    "minus times minus": {"a": of([-4, -4], 0, 64)},
    "fractions": {"a": of([16.0], 0, 64)},
    "truth": {"a": of([True] * 4, 0, 4)},
    "text": {"a": of(["16"], 0, 64)},
    "no offsets": {"a": {"dtype": "F32", "shape": [16]}},
    "three offsets": {"a": {"dtype": "F32", "shape": [16], "data_offsets": [0, 32, 64]}},
    "a list": [of([16], 0, 64)],
    "deep": b"[" * 50_000,
    "no JSON": b"\xff\xfe",
    "nothing": b"",
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_safetensors_that_lie_are_refused(header: Any, tmp_path: Path):
    """Shapes, types and places must fill the file without overlap."""
    assert refused(read_shapes, tensors(tmp_path / "w.safetensors", header))


@pytest.mark.parametrize("length", [0, 1, 10_000, 2**31, HUGE, 2**64 - 1])
def test_a_header_longer_than_its_file_is_not_read(length: int, tmp_path: Path):
    """The length comes first, and is held against the file."""
    assert refused(read_shapes, tensors(tmp_path / "w.safetensors", {"a": of([16], 0, 64)}, length=length))


def test_whole_safetensors_are_read(tmp_path: Path):
    """As the format's own writer makes them, scalars and empty tensors too."""
    tensors_by_name: dict[str, np.ndarray] = {
        "a": np.ones((2, 3), np.float32),
        "b": np.ones((), np.int64),
        "c": np.ones((0, 5), np.float16),
    }
    save_file(tensors_by_name, tmp_path / "w.safetensors", metadata={"format": "pt"})
    assert read_shapes(tmp_path / "w.safetensors") == {name: each.shape for name, each in tensors_by_name.items()}


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def field(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def array(kind: int, length: int, values: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, length) + values


def tensor(name: str, *shape: int, kind: int = 0, offset: int = 0, dimensions: int | None = None) -> bytes:
    count = len(shape) if dimensions is None else dimensions
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", count, *shape, kind, offset)


def packed(path: Path, fields: list[bytes], infos: list[bytes], counts: tuple[int, int] | None = None) -> Path:
    head = struct.pack("<4sIQQ", b"GGUF", 3, *(counts or (len(infos), len(fields))))
    content = head + b"".join(fields) + b"".join(infos)
    path.write_bytes(content + bytes(-len(content) % 32 + 256))
    return path


LIES = {
    "many fields": ([], [], (0, HUGE)),
    "many tensors": ([], [], (HUGE, 0)),
    "a long array": ([field("a", 9, array(4, HUGE))], [], None),
    "a long array of texts": ([field("a", 9, array(8, 2**40))], [], None),
    "arrays in arrays": ([field("a", 9, array(9, 1) * 20_000 + array(0, 1, b"1"))], [], None),
    "a long text": ([field("a", 8, struct.pack("<Q", HUGE))], [], None),
    "a long name": ([struct.pack("<Q", 2**63)], [], None),
    "a kind there is not": ([field("a", 99, b"")], [], None),
    "no text": ([field("a", 8, struct.pack("<Q", 2) + b"\xff\xff")], [], None),
    "an alignment of nothing": ([field("general.alignment", 4, struct.pack("<I", 0))], [tensor("t", 32)], None),
    "an alignment of text": ([field("general.alignment", 8, text("x"))], [tensor("t", 32)], None),
    "a huge alignment": ([field("general.alignment", 10, struct.pack("<Q", HUGE))], [tensor("t", 32)], None),
    "a huge shape": ([], [tensor("t", HUGE, HUGE)], None),
    "a huge offset": ([], [tensor("t", 32, offset=HUGE)], None),
    "many dimensions": ([], [tensor("t", dimensions=2**31)], None),
    "no dimension": ([], [tensor("t")], None),
    "nothing in it": ([], [tensor("t", 0)], None),
    "one name twice": ([], [tensor("t", 8), tensor("t", 8, offset=32)], None),
    "overlapping": ([], [tensor("a", 32), tensor("b", 32, offset=64)], None),
    "a type there is not": ([], [tensor("t", 32, kind=9999)], None),
    "half a block": ([], [tensor("t", 31, kind=8)], None),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_gguf_that_lies_is_refused(lie: tuple, tmp_path: Path):
    """Counts, lengths and places are held against the file before anything is made of them."""
    assert refused(GgufFile, packed(tmp_path / "w.gguf", *lie))


def test_an_array_of_more_values_than_a_tokenizer_has_is_refused(tmp_path: Path):
    """A byte of the file would be many of memory."""
    path = packed(tmp_path / "w.gguf", [field("a", 9, array(0, 20_000_000, bytes(20_000_000)))], [])
    assert "4,000,000" in refused(GgufFile, path)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\x00\x00\x00", b"x" * 100], ids=len)
def test_what_is_too_short_is_refused(content: bytes, tmp_path: Path):
    """An empty file can't even be mapped."""
    (tmp_path / "w.gguf").write_bytes(content)
    assert refused(GgufFile, tmp_path / "w.gguf")


def test_a_whole_gguf_is_read(tmp_path: Path):
    """As the format's own writer makes it."""
    writer = gguf.GGUFWriter(tmp_path / "w.gguf", "llama")
    writer.add_token_list(["a", "b"])
    writer.add_tensor("one", np.ones((2, 32), np.float32))
    writer.add_tensor("two", np.full((32,), 2, np.float16))
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    model = GgufFile(tmp_path / "w.gguf")
    assert model.fields["tokenizer.ggml.tokens"] == ["a", "b"]
    assert {name: model.tensor(name).sum() for name in model.names()} == {"one": 64, "two": 64}
