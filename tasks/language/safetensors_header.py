"""The header of a safetensors file, checked against the file before any weight is read."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

from tasks.core.untrusted import reading_untrusted

MAX_HEADER_BYTES = 100_000_000  # bytes, as the format's own readers allow
_BITS = {
    **{"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
    **{"I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64},
    "C64": 64,
}


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a safetensors file's tensors.

    Raises: DataError when the header is longer than the file, or the tensors don't fill the file without overlap.
    """
    what, allowed = "The model's weights are damaged.", "a whole safetensors file, as its header describes it"
    with reading_untrusted(what, path, allowed=allowed, todo="Get the file again."):
        size = path.stat().st_size
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(size - 8, MAX_HEADER_BYTES):
                raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        spans, shapes = [], {}
        for name, each in header.items():
            begin, end = each["data_offsets"]
            shapes[name] = tuple(each["shape"])
            if not all(type(number) is int and number >= 0 for number in (begin, end, *shapes[name])):
                raise ValueError(f"{name[:80]!r} has a size that is no whole number")
            if (end - begin) * 8 != math.prod(shapes[name]) * _BITS[each["dtype"]]:
                raise ValueError(f"{name[:80]!r} has {end - begin:,} bytes, which do not fit its shape and type")
            spans.append((begin, end))
        at = 0
        for begin, end in sorted(spans):
            if begin != at:
                raise ValueError("its tensors overlap, or have gaps between them")
            at = end
        if 8 + length + at != size:
            raise ValueError(f"{size:,} bytes, but its header states another size")
    return shapes
