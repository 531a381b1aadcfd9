"""Sources behind https:// and s3://: each file is downloaded once, whole, into the cache."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import DataError, DriftlineError, InputError, Unavailable
from tasks.core.files import atomic_path, disk_full_as_unavailable, file_digest
from tasks.core.untrusted import MB, SPARE
from tasks.data.origins.address import Address
from tasks.data.origins.local import PATTERN, is_hidden, require_one_kind
from tasks.data.origins.results import FetchedFile

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CONNECT_SECONDS, SILENT_SECONDS = 10, 60  # without a connection, without a byte
SLOWEST = 1_000  # bytes a second, on average, once SILENT_SECONDS have gone
REFUSALS = (401, 403, 404, 410)  # HTTP status: trying again does not help
SUFFIXES = {  # of an address without one, by what the server says
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/json": ".json",
    "application/x-ndjson": ".jsonl",
    "application/jsonl": ".jsonl",
    "application/vnd.apache.parquet": ".parquet",
    "application/zip": ".zip",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
}
CLIENT_EXTRAS = {"s3fs": "s3"}  # packages that are not part of the base installation, and their extras


def fetch_remote(address: Address, cache: Path, previous: Mapping[str, FetchedFile]) -> tuple[FetchedFile, ...]:
    """Download the files of an address that are new or changed; ETag, time and size tell which.

    Raises: DataError when the address has no file or is refused; Unavailable when it is away, slow or half delivered.
    """
    with _reporting(address):
        filesystem, path = open_filesystem(address)
        listed = dict(_list(filesystem, path, address))
        require_one_kind(address.uri, listed, mixed=address.mixed)
        return tuple(_fetch(filesystem, name, info, cache, previous.get(name)) for name, info in listed.items())


def check_remote(address: Address) -> None:
    """Check that an address can be reached and names files. Raises: DataError, Unavailable."""
    with _reporting(address):
        require_one_kind(address.uri, dict(_list(*open_filesystem(address), address)), mixed=address.mixed)


def has_delta_log(address: Address) -> bool:
    """Whether a folder on S3 is a Delta Lake table. Raises: DataError, Unavailable."""
    with _reporting(address):
        filesystem, path = open_filesystem(address)
        return not PATTERN.search(path) and bool(filesystem.exists(f"{path.rstrip('/')}/_delta_log"))


def open_filesystem(address: Address) -> tuple[AbstractFileSystem, str]:
    """fsspec's file system for an address, and the path on it."""
    from fsspec.core import url_to_fs

    uri = address.resolve()
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if uri.startswith("http"):
        from aiohttp import ClientTimeout

        timeout = ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
        options["client_kwargs"] = {"timeout": timeout, "trust_env": True}
        options["headers"] = {"Accept-Encoding": "identity"}  # so that the size is that of the file
    else:
        options["config_kwargs"] = {"connect_timeout": CONNECT_SECONDS, "read_timeout": SILENT_SECONDS}
    filesystem, path = url_to_fs(uri, **options)
    return filesystem, str(path)


def _list(filesystem: AbstractFileSystem, path: str, address: Address) -> Iterator[tuple[str, dict[str, Any]]]:
    """The files of an address by their names within it; a folder or pattern has several, on S3 alone."""
    if address.uri.startswith("http"):
        info = filesystem.info(path)
        yield _file_name(address, str(info.get("mimetype", ""))), info
        return
    root = path.rstrip("/")
    if PATTERN.search(path):
        found = filesystem.glob(path, detail=True)
        root = PATTERN.split(path)[0].rpartition("/")[0]
    elif filesystem.isfile(path):
        found, root = {path: filesystem.info(path)}, path.rpartition("/")[0]
    else:
        found = filesystem.find(root, detail=True)
    for name, info in sorted(found.items()):
        within = name.removeprefix(root).lstrip("/")
        if info["type"] != "file" or not within or is_hidden(within):  # .. is hidden, too
            continue
        yield within, info


def _file_name(address: Address, content_type: str) -> str:
    name = address.uri.partition("?")[0].partition("#")[0].rstrip("/").rpartition("/")[2]
    safe = "".join(c if c.isalnum() or c in ".-_" else "_" for c in name).lstrip("._") or "file"
    return safe if Path(safe).suffix else safe + SUFFIXES.get(content_type, "")


def _fetch(
    filesystem: AbstractFileSystem, name: str, info: dict[str, Any], cache: Path, previous: FetchedFile | None
) -> FetchedFile:
    from fsspec.callbacks import Callback

    path = cache / name
    version = _version(info)
    if previous and version and previous.version == version and path.is_file() and path.stat().st_size == previous.size:
        return previous
    with disk_full_as_unavailable(path), atomic_path(path) as temporary:
        temporary.touch()  # the free space of its disk is watched before the first byte
        filesystem.get_file(info["name"], str(temporary), callback=Callback(hooks={"watch": _Transfer(temporary)}))
        size, expected = temporary.stat().st_size, info.get("size")
        if expected is not None and size != expected:
            raise _Incomplete(f"{size:,} of {expected:,} bytes")
    return FetchedFile(name=name, path=path, digest=file_digest(path), size=size, version=version)


def _version(info: dict[str, Any]) -> str:
    """What tells one content of an address from the next; empty when the server says nothing of the kind."""
    parts = [str(info[name]) for name in ("ETag", "Last-Modified", "LastModified") if info.get(name)]
    return hashlib.sha256("\0".join([*parts, str(info.get("size"))]).encode()).hexdigest()[:32] if parts else ""


class _Incomplete(OSError):
    """A transfer that ended early, or is too slow."""


class _Transfer:
    """Watches a download: it must fit the disk, and must not trickle."""

    def __init__(self, path: Path) -> None:
        self._path, self._started = path, time.monotonic()

    def __call__(self, size: int | None, value: int, **_: object) -> None:
        free = shutil.disk_usage(self._path.parent).free
        if (left := (size or 0) - value) > free - SPARE or free < SPARE:
            raise Unavailable(
                "The disk has no room for a source's file.",
                where=str(self._path.parent),
                found=f"{max(left, 0) // MB:,} MB to come, {free // MB:,} MB free",
                allowed=f"files that leave {SPARE // MB} MB free",
                todo="Free space, or set DRIFTLINE_DATA to a folder on another disk.",
            )
        seconds = time.monotonic() - self._started
        if seconds > SILENT_SECONDS and value < SLOWEST * seconds:
            raise _Incomplete(f"{value:,} bytes in {seconds:.0f} seconds: too slow")


@contextmanager
def _reporting(address: Address) -> Iterator[None]:
    """Turn the errors of all clients into two: the address is wrong, or the server is not there."""
    try:
        yield
    except DriftlineError:
        raise
    except ImportError as error:
        package = next((name for name in CLIENT_EXTRAS if name in str(error)), "fsspec")
        raise missing_extra(address, package) from error
    except Exception as error:
        cause = error.__cause__ or error  # fsspec calls every failure of a web server a missing file
        status = getattr(cause, "status", None) or _s3_status(cause)
        if status:
            text = f"HTTP status {status} {getattr(cause, 'message', '')}"
        else:
            text = address.hide_secrets(" ".join(f"{type(cause).__name__}: {cause}".split()))[:300]
        missing = isinstance(cause, FileNotFoundError | PermissionError) or "Credentials" in type(cause).__name__
        if missing or status in REFUSALS:
            raise DataError(
                "A source can't be read from its address.",
                where=address.uri,
                found=text,
                todo="Correct the uri in case.yaml, or the credentials in the environment.",
            ) from error
        raise Unavailable(
            "A source does not answer, or not completely; nothing was changed.",
            where=address.uri,
            found=text,
            todo="Start again when it is back.",
        ) from error


def missing_extra(address: Address, package: str) -> InputError:
    extra = CLIENT_EXTRAS.get(package, package)
    return DataError(
        f"The package {package} is not installed.",
        where=address.uri,
        todo=f"Install the extra: .venv/bin/uv pip install -c requirements-dev.lock 'driftline[{extra}]'",
    )


def _s3_status(error: BaseException) -> int | None:
    """The HTTP status of one of botocore's errors."""
    response = getattr(error, "response", None)
    code = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
    return code if isinstance(code, int) else None
