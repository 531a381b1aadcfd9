"""Writes Parquet files with DuckDB, and reports a full disk as Python does."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.duckdb import quote_literal

if TYPE_CHECKING:
    import duckdb


def copy_to_parquet(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    """Write a query's rows as one Parquet file; call it inside `atomic_path`, which removes a partial file.

    Raises: OSError (ENOSPC) when the disk or the quota is full, which DuckDB reports as an error of its own.
    """
    import duckdb

    try:
        connection.execute(f"COPY ({query}) TO {quote_literal(path)} (FORMAT parquet)")
    except duckdb.IOException as error:
        if "No space left" in str(error) or "quota" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
