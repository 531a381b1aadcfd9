"""Check a foreign skops archive by the sizes that its files declare, before any of them is read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import IO
from zipfile import BadZipFile, ZipFile, ZipInfo

from tasks.core.untrusted import MB, check_zip

MAX_BYTES = 1024 * MB  # bytes of a model, unpacked
MAX_SCHEMA_BYTES = 16 * MB  # a forest of 500 trees has 3 MB
SCHEMA = "schema.json"


def check_archive(path: Path) -> None:
    """Raises: ValueError, and the errors of zipfile and numpy for damaged files."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{size:,} bytes; at most {MAX_BYTES:,}")
    try:
        archive = ZipFile(path)
    except BadZipFile as error:
        raise ValueError("not a skops archive") from error
    with archive:
        check_zip(archive, size, MAX_BYTES)
        for member in archive.infolist():
            if member.filename == SCHEMA and member.file_size > MAX_SCHEMA_BYTES:
                raise ValueError(f"a schema of {member.file_size:,} bytes; at most {MAX_SCHEMA_BYTES:,}")
            _check_arrays(archive, member)


def _check_arrays(archive: ZipFile, member: ZipInfo) -> None:
    """Check that arrays have the size of their header, also those of a sparse array, which is an archive itself."""
    if member.filename.endswith(".npy"):
        with archive.open(member) as stream:
            _check_array(stream, member)
    elif member.filename.endswith(".npz"):
        with archive.open(member) as stream, ZipFile(stream) as inner:
            check_zip(inner, member.file_size, MAX_BYTES)
            for each in inner.infolist():
                with inner.open(each) as array:
                    _check_array(array, each)


def _check_array(stream: IO[bytes], member: ZipInfo) -> None:
    from numpy.lib import format as npy

    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(stream)
    if version not in readers:
        raise ValueError(f"{member.filename[:80]!r} has an array of format {version}")
    shape, _, kind = readers[version](stream)
    expected = math.prod(shape) * kind.itemsize
    if kind.hasobject or any(length < 0 for length in shape) or stream.tell() + expected != member.file_size:
        raise ValueError(f"{member.filename[:80]!r} is not an array of {shape} of {kind}"[:200])
