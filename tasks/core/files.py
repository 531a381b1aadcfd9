"""Atomic writes, file digests, temporary folders and advisory locks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.core.errors import Busy, DriftlineError, Unavailable


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; rename it to `path` when the block succeeds.

    Raises: Unavailable when the disk is full. An existing file is replaced. An existing folder stays, since
    folders are named by their content or inputs.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove(temporary)
    try:
        yield temporary
        if temporary.is_dir() and path.exists():
            return
        temporary.replace(path)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full_error(path, error) from error
        raise
    finally:
        _remove(temporary)


class disk_full_as_unavailable:  # noqa: N801 (a context manager, used as one)
    """Turn any error that means a full disk under `path` into Unavailable."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and not isinstance(error, DriftlineError) and is_disk_full(error):
            raise disk_full_error(self._path, error) from error


def write_text(path: Path, text: str) -> Path:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def link_or_copy(source: Path, target: Path) -> None:
    """Put a file that never changes into a second place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(source, target)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def lock(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold an advisory lock; the system releases it when the process ends, even by kill -9.

    Raises: Busy when another process holds it and `wait` is false.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            stream.seek(0)
            raise Busy(
                f"{what} is busy.",
                where=str(path),
                found=f"held by process {stream.read().strip() or 'unknown'}",
                allowed="one run at a time",
                todo="Wait for it to end, or stop it, and start again.",
            ) from error
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield


def scratch_folder(parent: Path) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder on the same disk as the result."""
    parent.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=parent, prefix=".scratch-")


def temporary_folder(purpose: str, parent: Path | None = None) -> tempfile.TemporaryDirectory[str]:
    """A private folder in the system's temporary folder, named driftline-pidPID-PURPOSE-...

    Folders of killed processes are removed first.
    """
    base = parent or Path(tempfile.gettempdir())
    for old in base.glob("driftline-pid*-*"):
        with contextlib.suppress(OSError, ValueError):
            if old.lstat().st_uid == os.getuid() and not is_alive(int(old.name.split("-")[1].removeprefix("pid"))):
                shutil.rmtree(old)
    return tempfile.TemporaryDirectory(prefix=f"driftline-pid{os.getpid()}-{purpose}-", dir=parent)


def is_alive(pid: int) -> bool:
    """Whether a process with this id runs, of any user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def disk_usage(folder: Path) -> dict[str, int]:
    """Bytes on disk of each entry of a folder, largest first; hard links count once."""
    seen: set[tuple[int, int]] = set()

    def size(path: str) -> int:
        total = 0
        with contextlib.suppress(OSError), os.scandir(path) as entries:  # removed since it was listed
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    total += size(entry.path)
                    continue
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_nlink == 1 or (status.st_dev, status.st_ino) not in seen:
                        seen.add((status.st_dev, status.st_ino))
                        total += status.st_blocks * 512
        return total

    tops = sorted(folder.iterdir()) if folder.is_dir() else []
    sizes = {path.name: size(str(path)) if path.is_dir() else path.lstat().st_blocks * 512 for path in tops}
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def tail(log: Path, lines: int = 15, since: int = 0) -> str:
    """The last lines of a log after byte `since`; empty when there is no log."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(since, log.stat().st_size - 16_384))
            text = stream.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines:])


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says so: DuckDB, SQLite and others wrap the system's error without its number."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(words in str(error) for words in ("No space left on device", "disk is full", "Disk quota exceeded"))


def disk_full_error(path: Path | str, error: BaseException) -> Unavailable:
    """What a command says when the disk of a path is full."""
    return Unavailable(
        "The disk is full: nothing was written.",
        where=str(path),
        found=str(error).strip().splitlines()[0][:200],
        allowed="space for what is written",
        todo="Free space, or set DRIFTLINE_STATE and DRIFTLINE_DATA to another disk, and start again.",
    )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
