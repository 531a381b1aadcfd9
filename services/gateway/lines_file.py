"""A file of lines that never holds a partial line, even when the disk fills up."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
from collections.abc import Iterator
from pathlib import Path


class LinesFile:
    """The file is locked while it is open, so that no other process recovers it. The first line opens it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: io.FileIO | None = None
        self._end = 0  # offset behind the last whole line, in bytes

    def append(self, lines: bytes) -> None:
        """Add whole lines, or nothing. Raises: OSError."""
        file = self._open()
        try:
            written = 0
            while written < len(lines):
                written += file.write(lines[written:])
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(self._end)
            self.close()  # the next attempt opens it again
            raise
        self._end += written

    def read(self) -> Iterator[str]:
        """All lines, from the first."""
        file = self._open()
        file.seek(0)
        yield from io.TextIOWrapper(io.BufferedReader(_NonClosing(file)), encoding="utf-8", errors="replace")

    def truncate(self) -> None:
        self._open().truncate(0)
        self._end = 0

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    def _open(self) -> io.FileIO:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = io.FileIO(self._path, "a+")
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not os.path.samestat(os.fstat(file.fileno()), self._path.stat()):
                    raise OSError(errno.ESTALE, "Another process has just recovered it", str(self._path))
                self._end = file.seek(0, os.SEEK_END)
                if self._end and os.pread(file.fileno(), 1, self._end - 1) != b"\n":
                    self._end += file.write(b"\n")  # a partial last line must not spoil the next one
            except OSError:
                file.close()
                raise
            self._file = file
        return self._file


class _NonClosing(io.RawIOBase):
    """A readable view of a file that stays open when its reader is closed."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        return self._file.readinto(buffer)  # type: ignore[arg-type]
