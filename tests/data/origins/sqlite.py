"""Builds a SQLite database for a test."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any


def add_rows(path: Path, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows (id, at, value) into table t, whose columns have no types."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE IF NOT EXISTS t (id, at, value)")
        db.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
