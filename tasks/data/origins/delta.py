"""Sources in Delta Lake tables, read at their last version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tasks.core.duckdb import connect
from tasks.core.errors import DataError, DriftlineError, Unavailable
from tasks.core.files import atomic_path, disk_full_as_unavailable, file_digest
from tasks.data.origins.address import Address
from tasks.data.origins.local import path_of_uri
from tasks.data.origins.results import FetchedFile
from tasks.data.parquet import copy_to_parquet

ROWS = "rows.parquet"


def fetch_delta(
    address: Address, folder: Path, cache: Path, previous: Mapping[str, FetchedFile]
) -> tuple[tuple[FetchedFile, ...], str]:
    """The rows of a table's last version as one Parquet file, and that version; the same one is not read again.

    Raises: DataError, Unavailable.
    """
    try:
        from deltalake import DeltaTable, QueryBuilder
        from deltalake.exceptions import DeltaError, TableNotFoundError
    except ImportError as error:
        raise DataError(
            "The package deltalake is not installed.", where=address.uri, todo="Install the extra delta."
        ) from error
    uri = str(path_of_uri(address.uri, folder)) if address.kind == "local" else address.resolve()
    try:
        table = DeltaTable(uri)
        version = f"{table.metadata().id} {table.version()}"
        before = previous.get(ROWS)
        if before and before.version == version and before.path.is_file():
            return (before,), version
        rows = QueryBuilder().register("source", table).execute("SELECT * FROM source")
        path = cache / ROWS
        with disk_full_as_unavailable(cache), atomic_path(path) as temporary, connect() as db:
            db.register("rows", rows)
            copy_to_parquet(db, "SELECT * FROM rows", temporary)
    except DriftlineError:
        raise
    except TableNotFoundError as error:
        raise DataError("A source is no Delta table.", where=address.uri, found=str(error)) from error
    except (DeltaError, OSError) as error:
        raise Unavailable(
            "A source's Delta table can't be read; nothing was changed.",
            where=address.uri,
            found=address.hide_secrets(" ".join(str(error).split()))[:300],
            todo="Start again when it is back, or correct the uri and its credentials.",
        ) from error
    digest, size = file_digest(path), path.stat().st_size
    return (FetchedFile(name=ROWS, path=path, digest=digest, size=size, version=version),), version
