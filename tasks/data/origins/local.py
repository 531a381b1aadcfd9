"""Sources in files of this machine: one file, a folder, or a glob pattern."""

from __future__ import annotations

import importlib.util
import re
import time
from collections.abc import Mapping
from pathlib import Path

from tasks.core.errors import DataError
from tasks.core.files import file_digest
from tasks.data.origins.results import FetchedFile

SETTLED = 2.0  # seconds; a file changed more recently may change again without another time
PATTERN = re.compile(r"[*?\[]")


def path_of_uri(uri: str, folder: Path) -> Path:
    """The path of a file or folder that a URI names; relative paths start at the case's folder.

    Raises: DataError when the package is not installed.
    """
    scheme, _, rest = uri.partition("://")
    if scheme != "package":
        return (folder / rest).resolve()
    name, _, inside = rest.partition("/")
    # not imported: some data packages can't be imported any more
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"The package {name} is not installed.", where=uri, todo=f"pip install {name}")
    return Path(next(iter(spec.submodule_search_locations))) / inside


def locate(uri: str, folder: Path) -> Path:
    """The one file that a URI names.

    Raises: DataError when the package or the file does not exist.
    """
    path = path_of_uri(uri, folder)
    if not path.is_file():
        raise _missing(uri, path)
    return path


def list_files(uri: str, folder: Path, *, mixed: bool = False) -> dict[str, Path]:
    """The files that a URI names, by their names within it, sorted.

    A folder stands for all files in it and below, except those whose name, or whose folder's, begins with a dot or an
    underscore. Raises: DataError when there is none, or when they are of several kinds and not `mixed`.
    """
    path = path_of_uri(uri, folder)
    if path.is_file():
        return {path.name: path}
    if path.is_dir():
        root, paths = path, [each for each in path.rglob("*") if each.is_file()]
    elif PATTERN.search(uri):
        root = path
        while PATTERN.search(root.name) or not root.is_dir():
            root = root.parent
        paths = [each for each in root.glob(str(path.relative_to(root))) if each.is_file()]
    else:
        raise _missing(uri, path)
    names = {each.relative_to(root).as_posix(): each for each in sorted(paths)}
    files = {name: each for name, each in names.items() if not is_hidden(name)}
    require_one_kind(uri, files, mixed=mixed)
    return files


def is_hidden(name: str) -> bool:
    """Whether a file is a marker such as _SUCCESS, or lies in a folder of markers such as _delta_log."""
    return any(part.startswith((".", "_")) for part in name.split("/"))


def require_one_kind(uri: str, names: Mapping[str, object], *, mixed: bool = False) -> None:
    """Raises: DataError when there is no file, or when the files are of several kinds and not `mixed`."""
    if not names:
        raise DataError(
            "A source has no file.",
            where=uri,
            found="no file there, or only files whose names begin with . or _",
            todo="Put a file there, or correct the uri in case.yaml.",
        )
    kinds = sorted({"".join(Path(name).suffixes[-2:] if name.endswith(".gz") else Path(name).suffix) for name in names})
    if len(kinds) > 1 and not mixed:
        raise DataError(
            "The files of a source are of several kinds.",
            where=uri,
            found=", ".join(kind or "no suffix" for kind in kinds),
            allowed="files of one kind",
            todo=f"Name one kind in the uri: {uri.rstrip('/').partition('*')[0].rstrip('/')}/*{kinds[0]}",
        )


def fetch_local(
    uri: str, folder: Path, previous: Mapping[str, FetchedFile], *, mixed: bool = False
) -> tuple[FetchedFile, ...]:
    """The files with their digests; a file whose size and time are as before is not read again."""
    return tuple(
        _with_digest(name, path, previous.get(name)) for name, path in list_files(uri, folder, mixed=mixed).items()
    )


def _with_digest(name: str, path: Path, previous: FetchedFile | None) -> FetchedFile:
    status = path.stat()
    settled = time.time() - status.st_mtime > SETTLED
    version = f"{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}" if settled else ""
    if previous and version and (previous.path, previous.size, previous.version) == (path, status.st_size, version):
        return previous
    return FetchedFile(name=name, path=path, digest=file_digest(path), size=status.st_size, version=version)


def _missing(uri: str, path: Path) -> DataError:
    near = sorted(p.name for p in path.parent.glob("*") if p.is_file())[:12] if path.parent.is_dir() else []
    return DataError(
        "A source file is missing.",
        where=uri,
        found=f"no file {path}",
        allowed=f"files there: {', '.join(near)}" if near else "",
        todo="Put the file there, or correct the uri in case.yaml.",
    )
