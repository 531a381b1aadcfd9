"""Who may read what we write: its owner alone, but for files that the user's git tracks."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from tasks.core.errors import CaseError
from tasks.core.files import write_text

OTHERS = 0o077  # the permissions of everybody but the owner
# DVC marks its objects by this mode, and takes one of another mode for a file that may have changed. They lie in
# folders that nobody else can enter.
DVC_OBJECT = 0o444


def use_private_umask() -> None:
    """Have this process, and those that it starts, write for their owner alone."""
    os.umask(OTHERS)


def make_private(folder: Path) -> None:
    """Make a folder, unless it is there, and close it to others; that of another user stays as it is."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _close(str(folder), folder.stat())


def make_all_private(folder: Path) -> None:
    """Close a folder to others, and all that an earlier version wrote in it."""
    make_private(folder)
    for entry in _entries(str(folder)):
        with contextlib.suppress(FileNotFoundError):
            _close(entry.path, entry.stat(follow_symlinks=False))


def write_shared(path: Path, text: str) -> Path:
    """Write a whole text file that git is to track: whoever may read the folder around it may read it, too."""
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
    """Everything in a folder but symbolic links, whose targets are not ours."""
    # gone since it was listed, or another user's
    with contextlib.suppress(FileNotFoundError, PermissionError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                continue
            yield entry
            if entry.is_dir():
                yield from _entries(entry.path)
