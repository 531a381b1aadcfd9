"""A skops archive of a stranger: what its files declare is checked before any of them is read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import IO
from zipfile import BadZipFile, ZipFile, ZipInfo

from tasks.core.untrusted import MB, check_zip

MOST = 1024 * MB  # bytes of a model, unpacked
MOST_SCHEMA = 16 * MB  # a forest of 500 trees has 3 MB
SCHEMA = "schema.json"


def check_archive(path: Path) -> None:
    """Raises: ValueError, and what zipfile and numpy raise of damaged files."""
    size = path.stat().st_size
    if size > MOST:
        raise ValueError(f"{size:,} bytes; at most {MOST:,}")
    try:
        archive = ZipFile(path)
    except BadZipFile as error:
        raise ValueError("not a skops archive") from error
    with archive:
        check_zip(archive, size, MOST)
        for member in archive.infolist():
            if member.filename == SCHEMA and member.file_size > MOST_SCHEMA:
                raise ValueError(f"a schema of {member.file_size:,} bytes; at most {MOST_SCHEMA:,}")
            _check_arrays(archive, member)


def _check_arrays(archive: ZipFile, member: ZipInfo) -> None:
    """An array is as large as its header says; so are those of a sparse one, which is an archive itself."""
    if member.filename.endswith(".npy"):
        with archive.open(member) as stream:
            _check_array(stream, member)
    elif member.filename.endswith(".npz"):
        with archive.open(member) as stream, ZipFile(stream) as inner:
            check_zip(inner, member.file_size, MOST)
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
    wanted = math.prod(shape) * kind.itemsize
    if kind.hasobject or any(length < 0 for length in shape) or stream.tell() + wanted != member.file_size:
        raise ValueError(f"{member.filename[:80]!r} is no array of {shape} of {kind}"[:200])
