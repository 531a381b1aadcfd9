"""Alerts wait in an outbox table until Prefect's server accepts them."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import Connection, insert

from services.store.database import Store, alert_outbox, now
from tasks.core.events import alert_event
from tasks.core.loops import Loop

PLATFORM = "platform"  # the case of an alert that concerns no single case


def add_alert(connection: Connection, event: dict[str, Any]) -> None:
    """Queue an alert; `event` is a result of `alert_event`."""
    connection.execute(insert(alert_outbox).values(id=str(uuid.uuid4()), at=now(), event=event))


def alert_loop_failure(store: Store, process: str, loop: Loop) -> None:
    """Alert that a background loop of the gateway or the worker fails repeatedly."""
    subject = f"The {process}'s loop {loop.name!r} fails"
    body = f"{loop.failures_in_a_row} failures in a row: {loop.last_error}\nIt retries. See the {process}'s log."
    with store.writing() as connection:
        add_alert(connection, alert_event(PLATFORM, f"{process} {loop.name}", subject, body))
