"""Folders in one archive: written atomically while others write them, and unpacked only if it is undamaged."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.core.errors import DataError, InputError
from tasks.core.files import atomic_path, scratch_folder
from tasks.core.untrusted import MAX_JSON_BYTES, BoundedReader, require_disk_space

FORMAT = 1
METADATA, DIGESTS = "backup.json", "digests.json"  # the first member, and the last: an archive without it is truncated
SQLITE = b"SQLite format 3\0"


def pack(
    archive: Path,
    places: Mapping[str, Path],
    metadata: Mapping[str, Any],
    exclude: Callable[[str], bool],
    first: Sequence[str] = (),
) -> int:
    """Write the files of `places` under their names into a new archive; returns their number.

    `first` are patterns of files to read before the rest, in this order: they refer to other files, or may be emptied
    meanwhile. SQLite copies its databases itself.
    """
    digests: dict[str, str] = {}
    with (
        atomic_path(archive) as temporary,
        scratch_folder(archive.parent) as work,
        _opened(temporary) as tar,
    ):
        _add_text(tar, METADATA, {"format": FORMAT, **metadata})
        for name, path in chain(_matching(places, first), _files(places)):  # the rest is listed only after the first
            if name not in digests and not exclude(name):
                changes = any(PurePosixPath(name).match(pattern) for pattern in first)
                _add(tar, name, path, digests, changes, Path(work) / str(len(digests)))
        _add_text(tar, DIGESTS, digests)
    return len(digests)


def read_metadata(archive: Path) -> dict[str, Any]:
    """An archive's metadata.

    Raises: DataError when it is no archive; InputError when a newer version wrote it.
    """
    with _reading(archive) as tar:
        member = tar.next()
        metadata = _json(tar, member) if member and member.name == METADATA else {}
    if "format" not in metadata:
        raise _damaged(archive, f"its first file is not {METADATA}")
    if not isinstance(metadata["format"], int):
        raise _damaged(archive, "its format is no number")
    if metadata["format"] > FORMAT:
        raise InputError(
            "A newer version wrote the archive.",
            where=str(archive),
            found=f"format {metadata['format']}, of commit {metadata.get('commit', 'unknown')}",
            allowed=f"up to format {FORMAT}",
            todo="Restore with the version that wrote it.",
        )
    return metadata


def unpack(archive: Path, places: Mapping[str, Path]) -> None:
    """Write all files of an archive under `places`, with their digests checked.

    Raises: DataError when one is missing, damaged, no regular file, or outside these places.
    """
    digests: dict[str, str] = {}
    stated = None
    with _reading(archive) as tar:
        for member in tar:
            if member.name == DIGESTS:
                stated = _json(tar, member)
            elif member.name != METADATA:
                digests[member.name] = _extract(tar, member, places, digests, archive)
    if stated is None:
        raise _damaged(archive, "its end is missing")
    if wrong := sorted(name for name in {*stated, *digests} if stated.get(name) != digests.get(name)):
        raise _damaged(archive, f"{len(wrong)} files differ from their digests: {', '.join(wrong[:3])}")


def is_database(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(SQLITE)) == SQLITE


def _matching(places: Mapping[str, Path], patterns: Sequence[str]) -> Iterator[tuple[str, Path]]:
    for pattern in patterns:
        place, _, rest = pattern.partition("/")
        for path in sorted(places[place].glob(rest)):
            yield f"{place}/{path.relative_to(places[place])}", path


def _files(places: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    """A generator, so that files are listed after the first ones were read."""
    for place, root in places.items():
        for path in sorted(root.rglob("*")):
            if path.is_file():
                yield f"{place}/{path.relative_to(root)}", path


def _add(tar: tarfile.TarFile, name: str, path: Path, digests: dict[str, str], changes: bool, copy: Path) -> None:
    try:
        if is_database(path):
            _copy_database(path, copy)
        elif changes:
            shutil.copy2(path, copy)
        stream = (copy if copy.exists() else path).open("rb")
    except FileNotFoundError:
        return  # deleted since it was listed; files to which packed ones refer are never deleted
    with stream:
        member = tar.gettarinfo(arcname=name, fileobj=stream)
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        if member.islnk():
            digests[name] = digests[member.linkname]
            tar.addfile(member)
        else:
            reader = _Hashing(stream)
            tar.addfile(member, reader)
            digests[name] = reader.digest.hexdigest()


def _copy_database(path: Path, target: Path) -> None:
    """A consistent copy, while others read and write the database."""
    with (
        closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=60)) as source,
        closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy)
    shutil.copystat(path, target)


def _extract(
    tar: tarfile.TarFile, member: tarfile.TarInfo, places: Mapping[str, Path], known: Mapping[str, str], archive: Path
) -> str:
    place, *parts = PurePosixPath(member.name).parts
    if place not in places or not parts or ".." in parts or not (member.isreg() or member.islnk()):
        raise _damaged(archive, f"{member.name} is outside the places of a backup")
    target = places[place].joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.issparse():
        raise _damaged(archive, f"{member.name} is sparse")
    require_disk_space(target.parent, member.size)
    if member.islnk():
        place, *parts = PurePosixPath(member.linkname).parts
        if member.linkname not in known:
            raise _damaged(archive, f"{member.name} links to no earlier file")
        _link(places[place].joinpath(*parts), target)
        return known[member.linkname]
    reader = _Hashing(_content(tar, member))
    with target.open("wb") as stream:
        shutil.copyfileobj(reader, stream, 1 << 20)
    target.chmod(member.mode & 0o777)
    os.utime(target, (member.mtime, member.mtime))
    return reader.digest.hexdigest()


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # the places are on different disks
        shutil.copy2(source, target)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    content = tar.extractfile(member)
    if content is None:
        raise tarfile.ReadError(f"{member.name} is no file")
    return content


def _json(tar: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
    if member.size > MAX_JSON_BYTES:
        raise ValueError(f"{member.name} of {member.size:,} bytes")
    value = json.loads(_content(tar, member).read())
    if not isinstance(value, dict):
        raise ValueError(f"{member.name} holds no JSON object")
    return value


def _add_text(tar: tarfile.TarFile, name: str, value: object) -> None:
    text = json.dumps(value, indent=1).encode()
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = len(text), int(time.time()), 0o600
    tar.addfile(member, io.BytesIO(text))


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    path.touch(mode=0o600)  # private, as the databases in it are
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        yield tar


@contextmanager
def _reading(archive: Path) -> Iterator[tarfile.TarFile]:
    """Open an archive. Raises: InputError when it does not exist; DataError when it is damaged."""
    try:
        with gzip.open(archive) as stream, _tar(stream) as tar:
            yield tar
    except FileNotFoundError as error:
        if error.filename is None or Path(error.filename) != archive:
            raise
        raise InputError(
            "There is no such archive.", where=str(archive), todo="Name a file of `driftline backup`."
        ) from error
    except (tarfile.TarError, zlib.error, EOFError, ValueError, RecursionError, MemoryError, TypeError) as error:
        raise _damaged(archive, str(error)) from error
    except OSError as error:
        if error.errno is not None:  # of the disk; gzip's own errors have no number
            raise
        raise _damaged(archive, str(error)) from error


def _tar(stream: Any) -> tarfile.TarFile:
    """A tar whose headers are bounded: they state their own length, and are read at once."""
    file: Any = BoundedReader(stream, MAX_JSON_BYTES)  # it has what tarfile uses of a file
    return tarfile.open(fileobj=file, mode="r:")


def _damaged(archive: Path, found: str) -> DataError:
    return DataError(
        "The archive is damaged; nothing was restored.",
        where=str(archive),
        found=found,
        todo="Use another copy of it, or an earlier backup.",
    )


class _Hashing:
    """A stream that computes the digest of what is read."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.digest = stream, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        block: bytes = self._stream.read(size)
        self.digest.update(block)
        return block
