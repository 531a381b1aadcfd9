"""Files of strangers: what they declare is checked before anything is read, and every fault is one error."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

from tasks.core.errors import DataError, DriftlineError

MB = 1 << 20
MAX_JSON_BYTES = 64 * MB  # bytes of a JSON file; tokenizers have 10 to 35 MB
MAX_MEMBERS = 20_000  # of a zip archive; a forest of 500 trees has 2,000
MAX_RATIO, SMALL = 200, 64 * MB  # an archive may declare so many times its own size, or so little in all
SPARE = 64 * MB  # bytes of a disk that no archive may take
_ENCRYPTED = 0x1
_OF_THE_SYSTEM = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE}
TODO = "Get the file again, or take another."


@contextmanager
def reading_untrusted(what: str, path: Path, *, allowed: str, todo: str = TODO) -> Iterator[None]:
    """Make one DataError of whatever goes wrong while a stranger's file is read.

    A full or broken disk and missing permissions stay an OSError: they are not the file's fault.
    """
    try:
        yield
    except DriftlineError:
        raise
    except Exception as error:  # parsers raise what they come to, MemoryError and RecursionError included
        if isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
            raise
        text = " ".join(str(error).split())[:300]
        found = text if type(error) is ValueError else f"{type(error).__name__}: {text}".rstrip(": ")
        raise DataError(what, where=str(path), found=found, allowed=allowed, todo=todo) from error


def check_zip(archive: ZipFile, size: int, most: int) -> None:
    """Check what a zip archive of `size` bytes declares, before any of it is read; `most` bytes in all.

    Raises: ValueError.
    """
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise ValueError(f"{len(members):,} files in the archive; at most {MAX_MEMBERS:,}")
    for member in members:
        if not 0 <= member.header_offset < size:
            raise ValueError(f"{member.filename[:80]!r} lies outside of the archive")
        if member.flag_bits & _ENCRYPTED:
            raise ValueError(f"{member.filename[:80]!r} is encrypted")
        if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            raise ValueError(f"{member.filename[:80]!r} is compressed by method {member.compress_type}; only deflate")
    if len({member.filename for member in members}) < len(members):
        raise ValueError("two files of one name in the archive")
    declared, limit = sum(member.file_size for member in members), min(most, max(SMALL, MAX_RATIO * size))
    if declared > limit:
        raise ValueError(f"{declared:,} bytes when unpacked, of {size:,}; at most {limit:,}")


def require_disk_space(folder: Path, wanted: int) -> None:
    """Raises: ValueError when a file of `wanted` bytes would fill the disk."""
    free = shutil.disk_usage(folder).free
    if wanted > free - SPARE:
        raise ValueError(f"{wanted:,} bytes when unpacked; {max(free - SPARE, 0):,} are free")


def read_json_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises: DataError when it is larger than MAX_JSON_BYTES, too deep, or none.
    """
    with reading_untrusted(
        "A JSON file can't be read.", path, allowed=f"a JSON object of at most {MAX_JSON_BYTES // MB} MB"
    ):
        if (size := path.stat().st_size) > MAX_JSON_BYTES:
            raise ValueError(f"{size:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
    return content


class BoundedReader:
    """A stream that never reads more than `most` bytes at once, whatever a header asks for."""

    def __init__(self, stream: Any, most: int) -> None:
        self._stream, self._most = stream, most

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._most:
            raise ValueError(f"a header asks for {size:,} bytes at once")
        return bytes(self._stream.read(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self._stream.tell())
