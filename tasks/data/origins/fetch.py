"""Fetches a source, whatever its address, as local files with digests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from tasks.core.config import Result, digest_of
from tasks.core.files import write_text
from tasks.data.config import Source
from tasks.data.origins.address import Address
from tasks.data.origins.hive import has_partitions, write_partition_columns
from tasks.data.origins.local import fetch_local, list_files, path_of_uri
from tasks.data.origins.results import Fetched, FetchedFile, describe_changes

RECORD = "fetched.json"


class _Record(Result):
    """The last fetch, in the cache."""

    address: str  # its digest; the record of another address is worthless
    originals: tuple[FetchedFile, ...]  # as they lie at the address; a data set's files get columns from their folders
    fetched: Fetched


def fetch_source(source: Source, folder: Path, cache: Path) -> Fetched:
    """The local files of a source. `folder` is the case's; `cache` is the source's own.

    Raises: CaseError, DataError, Unavailable; what was fetched before stays.
    """
    return fetch(Address.of(source), folder, cache)


def fetch(address: Address, folder: Path, cache: Path) -> Fetched:
    """The local files of an address; what has not changed since the last fetch into `cache` is not read again."""
    record = _read_record(cache, address)
    before = {file.name: file for file in record.originals} if record else {}
    version = ""
    if is_delta_table(address, folder):
        from tasks.data.origins.delta import fetch_delta

        originals, version = fetch_delta(address, folder, cache / "rows", before)
    elif address.kind == "local":
        originals = fetch_local(address.uri, folder, before, mixed=address.mixed)
    elif address.kind == "texts":
        from tasks.data.origins.labelled_texts import fetch_texts

        originals = fetch_texts(address.uri, cache / "texts")
    elif address.kind == "remote":
        from tasks.data.origins.remote import fetch_remote

        originals = fetch_remote(address, cache / "files", before)
    else:
        from tasks.data.origins.database import fetch_database

        originals, version = fetch_database(address, folder, cache / "rows", before)
    files = originals
    if has_partitions(originals):
        files = write_partition_columns(originals, cache / "partitions", record.fetched.files if record else ())
    by_month = address.kind == "database"
    changes = describe_changes(*(_parts(each, by_month) for each in (record.originals, originals))) if record else ""
    if record and not changes and record.fetched.version == version:
        # equal files may lie elsewhere now: each pushed commit has a folder of its own
        fetched = record.fetched.model_copy(update={"changes": "", "files": files})
    else:
        fetched = Fetched(uri=address.uri, files=files, at=datetime.now(UTC), version=version, changes=changes)
    new_record = _Record(address=_digest(address), originals=originals, fetched=fetched)
    write_text(cache / RECORD, new_record.model_dump_json(indent=1))
    _remove_stale(cache, {file.path for file in (*originals, *files)})
    return fetched


def _parts(files: Iterable[FetchedFile], by_month: bool) -> dict[str, str]:
    """What tells the content of a source's parts, by name: its files, or the months of a database."""
    parts: dict[str, str] = {}
    for file in files:
        name = file.name.rpartition("#")[0] if by_month else file.name
        parts[name] = parts.get(name, "") + (file.version if by_month else file.digest)
    return parts


def check_source(source: Source, folder: Path) -> None:
    """Check that a source is there, without reading it. Raises: CaseError, DataError, Unavailable."""
    address = Address.of(source)
    if address.kind == "local":
        list_files(address.uri, folder)
    elif address.kind == "texts":
        from tasks.data.origins.labelled_texts import check_texts

        check_texts(address.uri)
    elif address.kind == "remote":
        from tasks.data.origins.remote import check_remote

        check_remote(address)
    else:
        from tasks.data.origins.database import check_database

        check_database(address, folder)


def is_delta_table(address: Address, folder: Path) -> bool:
    """Whether a folder, here or on S3, is a Delta Lake table: its files alone would include deleted rows."""
    if address.kind == "local":
        return (path_of_uri(address.uri, folder) / "_delta_log").is_dir()
    if not address.uri.startswith("s3://"):
        return False
    from tasks.data.origins.remote import has_delta_log

    return has_delta_log(address)


def _read_record(cache: Path, address: Address) -> _Record | None:
    with contextlib.suppress(OSError, ValueError):
        record = _Record.model_validate_json((cache / RECORD).read_text(encoding="utf-8"))
        fetched = [file.path for file in (*record.originals, *record.fetched.files) if file.path.is_relative_to(cache)]
        if record.address == _digest(address) and all(path.is_file() for path in fetched):
            return record
    return None


def _digest(address: Address) -> str:
    return digest_of([address.uri, address.query, address.times, address.mixed])


def _remove_stale(cache: Path, used: set[Path]) -> None:
    """Remove what earlier fetches left in the cache."""
    for path in cache.rglob("*"):
        if path.is_file() and path not in used and path != cache / RECORD:
            path.unlink()
