"""Untrusted files: declared sizes are checked before reading, and every fault becomes one DataError."""

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
MAX_RATIO, SMALL = 200, 64 * MB  # declared size: at most this multiple of the archive, or this many bytes
SPARE = 64 * MB  # bytes of the disk that stay free
_ENCRYPTED = 0x1
_SYSTEM_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE}
TODO = "Download the file again, or use another one."


@contextmanager
def reading_untrusted(what: str, path: Path, *, allowed: str, todo: str = TODO) -> Iterator[None]:
    """Turn any error while reading an untrusted file into one DataError.

    A full or broken disk and missing permissions stay an OSError: the file is not their cause.
    """
    try:
        yield
    except DriftlineError:
        raise
    except Exception as error:  # parsers raise anything, MemoryError and RecursionError included
        if isinstance(error, OSError) and error.errno in _SYSTEM_ERRORS:
            raise
        text = " ".join(str(error).split())[:300]
        found = text if type(error) is ValueError else f"{type(error).__name__}: {text}".rstrip(": ")
        raise DataError(what, where=str(path), found=found, allowed=allowed, todo=todo) from error


def check_zip(archive: ZipFile, size: int, max_bytes: int) -> None:
    """Check what a zip archive of `size` bytes declares, before any of it is read; `max_bytes` in all.

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
    declared, limit = sum(member.file_size for member in members), min(max_bytes, max(SMALL, MAX_RATIO * size))
    if declared > limit:
        raise ValueError(f"{declared:,} bytes when unpacked, of {size:,}; at most {limit:,}")


def require_disk_space(folder: Path, size: int) -> None:
    """Raises: ValueError when a file of `size` bytes would fill the disk."""
    free = shutil.disk_usage(folder).free
    if size > free - SPARE:
        raise ValueError(f"{size:,} bytes when unpacked; {max(free - SPARE, 0):,} are free")


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises: DataError when it is larger than MAX_JSON_BYTES, too deep, or not an object.
    """
    with reading_untrusted(
        "A JSON file can't be read.", path, allowed=f"a JSON object of at most {MAX_JSON_BYTES // MB} MB"
    ):
        if (size := path.stat().st_size) > MAX_JSON_BYTES:
            raise ValueError(f"{size:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
    return content


class BoundedReader:
    """A stream that never reads more than `max_bytes` at once, whatever a header declares."""

    def __init__(self, stream: Any, max_bytes: int) -> None:
        self._stream, self._max_bytes = stream, max_bytes

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._max_bytes:
            raise ValueError(f"a header asks for {size:,} bytes at once")
        return bytes(self._stream.read(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self._stream.tell())
