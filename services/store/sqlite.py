"""Connections to the embedded SQLite database, and its JSON columns."""

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
    """The value of a JSON column; None for invalid JSON, so that the other rows of the query can be read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        logging.getLogger("driftline").error("The store has invalid JSON: %.80r: %s", text, error)
        return None


def _make_fast(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin below
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")  # kill -9 loses nothing; a power cut may lose the last transactions


def _lock_at_once(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # otherwise a reader that starts to write would fail, not wait
