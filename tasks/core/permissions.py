"""File permissions: everything is private to its owner, except files that git tracks."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from tasks.core.errors import CaseError
from tasks.core.files import write_text

OTHERS = 0o077  # permission bits of group and others
# DVC marks its objects by this mode, and takes any other mode as a sign of a change. They lie in private folders.
DVC_OBJECT = 0o444


def use_private_umask() -> None:
    """Let this process and its children create private files."""
    os.umask(OTHERS)


def make_private(folder: Path) -> None:
    """Create a folder if needed and remove others' permissions; another user's folder stays as it is."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _close(str(folder), folder.stat())


def make_all_private(folder: Path) -> None:
    """Remove others' permissions from a folder and its whole content, which earlier versions wrote."""
    make_private(folder)
    for entry in _entries(str(folder)):
        with contextlib.suppress(FileNotFoundError):
            _close(entry.path, entry.stat(follow_symlinks=False))


def write_shared(path: Path, text: str) -> Path:
    """Write a text file that git tracks atomically, with the permissions of the folder around it."""
    new_folders = [folder for folder in path.parents if not folder.exists()]
    write_text(path, text)
    for new in [*reversed(new_folders), path]:
        around = stat.S_IMODE(new.parent.stat().st_mode)
        new.chmod(around if new.is_dir() else around & 0o666)
    return path


def require_private(path: Path) -> None:
    """Raises: CaseError when others than its owner may read or change a file that holds secrets."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & OTHERS:
        raise CaseError(
            "Other users of this machine can read a file that holds secrets.",
            where=str(path),
            found=f"mode {mode:04o}",
            allowed="a file for its owner alone, mode 0600",
            todo=f"chmod 600 {path}",
        )


def _close(path: str, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if mode & OTHERS and mode != DVC_OBJECT and os.getuid() in (0, status.st_uid):
        os.chmod(path, mode & ~OTHERS)


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """Everything in a folder except symbolic links, whose targets may be outside."""
    # removed since it was listed, or another user's
    with contextlib.suppress(FileNotFoundError, PermissionError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                continue
            yield entry
            if entry.is_dir():
                yield from _entries(entry.path)
