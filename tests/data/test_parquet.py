"""Parquet files that DuckDB writes."""

from __future__ import annotations

import duckdb
import pytest

from tasks.core.errors import Unavailable
from tasks.core.files import atomic_path
from tasks.data.parquet import copy_to_parquet


def test_a_full_disk_leaves_no_partial_file(tmp_path):
    """DuckDB's error becomes the one that says what to do; no file, complete or partial, is left."""

    def write() -> None:
        with duckdb.connect() as connection, atomic_path(tmp_path / "x") as temporary:
            temporary.symlink_to("/dev/full")
            copy_to_parquet(connection, "FROM range(1000000)", temporary)

    with pytest.raises(Unavailable, match="disk is full"):
        write()
    assert not list(tmp_path.iterdir())
