"""How the embedded SQLite database is opened, and how JSON columns are read."""

from __future__ import annotations

import json
import logging
from typing import Any

from sqlalchemy import Connection, Engine, event


def prepare_sqlite(engine: Engine) -> None:
    """Set up every connection of an engine for many readers and one writer at a time."""
    event.listen(engine, "connect", _make_fast)
    event.listen(engine, "begin", _lock_at_once)


def read_json(text: str | bytes) -> Any:
    """The value of a JSON column; None for text that is no JSON, which must not hide the other rows of its query."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        logging.getLogger("driftline").error("The store holds text that is no JSON: %.80r: %s", text, error)
        return None


def _make_fast(connection: Any, _: object) -> None:
    connection.isolation_level = None  # we begin by ourselves, below
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")  # kill -9 loses nothing; a power cut, perhaps the last


def _lock_at_once(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # a reader that turns writer would fail, not wait
