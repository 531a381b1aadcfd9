"""A transactional outbox for Prefect's server: a stored push becomes a flow run, a stored alert an event."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import aiohttp
from sqlalchemy import Delete, RowMapping, Select, Update, delete, select, update

from services.store.database import Store, alert_outbox, now, webhook_deliveries
from tasks.core.git_push import PUSH_DEPLOYMENT, GitPush
from tasks.core.settings import Settings

ALERTS = select(alert_outbox).order_by(alert_outbox.c.at)
PUSHES = (
    select(webhook_deliveries)
    .where(webhook_deliveries.c.forwarded_at.is_(None))
    .order_by(webhook_deliveries.c.received_at)
)
RETRY_SECONDS, MAX_RETRY_SECONDS = 2.0, 32.0  # between attempts; `notify` ends a pause
PERMANENT_FAILURES = (400, 409, 413, 422)  # Prefect rejects the content: a retry would not help
BATCH = 500  # rows of one query


class Outbox:
    """Delivers rows in the background. Deliveries are idempotent: a repeated one creates no second run or alert."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._api, self._headers = store, settings.prefect_api, settings.prefect_headers
        self._wake = asyncio.Event()
        self._delay = 0.0
        self._failed: set[str] = set()

    def notify(self) -> None:
        """Deliver now, without waiting for the next attempt."""
        self._wake.set()

    async def deliver(self) -> None:
        """Wait for `notify` or the next attempt, then deliver all rows, oldest first.

        A row that Prefect's server fails on is tried last from then on, so that it delays no other.
        A row that can't be parsed is dropped with a log line.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), self._delay)
        self._wake.clear()
        self._delay = min(max(2 * self._delay, RETRY_SECONDS), MAX_RETRY_SECONDS)  # until all rows are delivered
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(headers=self._headers, timeout=timeout, trust_env=False) as http:
            waiting = [
                *((f"alert {row['id']}", self._send_alert, row) for row in await asyncio.to_thread(self._rows, ALERTS)),
                *((f"push {row['delivery_id']}", self._send_push, row)
                  for row in await asyncio.to_thread(self._rows, PUSHES)),
            ]  # fmt: skip
            self._failed &= {name for name, _, _ in waiting}
            for name, send, row in sorted(waiting, key=lambda each: each[0] in self._failed):
                try:
                    await send(http, row)
                    self._failed.discard(name)
                except Exception as error:  # noqa: BLE001 (no error may delay the other rows)
                    if name not in self._failed:
                        logging.getLogger("driftline").warning("Prefect did not get the %s: %.300r", name, error)
                    self._failed.add(name)
                    if isinstance(error, aiohttp.ClientConnectionError | TimeoutError):
                        return  # the server is down
        if not self._failed:
            self._delay = RETRY_SECONDS

    async def _send_alert(self, http: aiohttp.ClientSession, row: RowMapping) -> None:
        try:
            occurred = datetime.fromtimestamp(row["at"], UTC).isoformat()
            body = json.dumps([{"id": row["id"], "occurred": occurred, **row["event"]}])
        except Exception:
            logging.getLogger("driftline").exception("The alert %s can't be parsed and is dropped.", row["id"])
        else:
            await self._post(http, "events", body)
        await asyncio.to_thread(self._write, delete(alert_outbox).where(alert_outbox.c.id == row["id"]))

    async def _send_push(self, http: aiohttp.ClientSession, row: RowMapping) -> None:
        """Create the run; its idempotency key finds one that an earlier attempt created."""
        try:
            body = json.dumps(GitPush.model_validate(row["payload"]).run)
        except Exception:
            logging.getLogger("driftline").exception("The push %s can't be parsed and is dropped.", row["delivery_id"])
        else:
            async with http.get(f"{self._api}/deployments/name/{PUSH_DEPLOYMENT}") as response:
                response.raise_for_status()
                deployment = (await response.json())["id"]
            await self._post(http, f"deployments/{deployment}/create_flow_run", body)
        delivered = (
            update(webhook_deliveries)
            .where(webhook_deliveries.c.delivery_id == row["delivery_id"])
            .values(forwarded_at=now())
        )
        await asyncio.to_thread(self._write, delivered)

    async def _post(self, http: aiohttp.ClientSession, what: str, body: str) -> None:
        headers = {"content-type": "application/json"}
        async with http.post(f"{self._api}/{what}", data=body.encode(), headers=headers) as response:
            if response.status in PERMANENT_FAILURES:
                reason = (await response.text())[:300]
                logging.getLogger("driftline").error("Prefect rejects %s: %s", body[:2000], reason)
                return
            response.raise_for_status()

    def _rows(self, waiting: Select[Any]) -> Sequence[RowMapping]:
        with self._store.reading() as connection:
            return connection.execute(waiting.limit(BATCH)).mappings().all()

    def _write(self, done: Update | Delete) -> None:
        with self._store.writing() as connection:
            connection.execute(done)
