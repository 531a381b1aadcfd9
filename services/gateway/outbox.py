"""What Prefect's server is to be told lies in the store until it has heard: a push becomes a run, an alert an event."""

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
LOOK, MOST_WAIT = 2.0, 32.0  # seconds between tries, ever longer; a push that comes is told at once
NEVER = (400, 409, 413, 422)  # Prefect will not take it, however often it is asked
AT_ONCE = 500  # rows of one look


class Outbox:
    """Tells in the background. What two gateways tell, or one tells twice, is one run, and one alert of its cause."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._api, self._headers = store, settings.prefect_api, settings.prefect_headers
        self._came = asyncio.Event()
        self._wait = 0.0
        self._failed: set[str] = set()

    def at_once(self) -> None:
        """Something has come that should not wait for the next look."""
        self._came.set()

    async def deliver(self) -> None:
        """Wait for something to come, or for the next look, and tell of everything, oldest first.

        A row that Prefect's server fails over comes last from then on, and holds up no other; one that can't be read is
        dropped, and the log says so.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._came.wait(), self._wait)
        self._came.clear()
        self._wait = min(max(2 * self._wait, LOOK), MOST_WAIT)  # until everything was sent
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
                except Exception as error:  # noqa: BLE001 (whatever it is, the other rows must not wait for it)
                    if name not in self._failed:
                        logging.getLogger("driftline").warning("The %s waits for Prefect: %.300r", name, error)
                    self._failed.add(name)
                    if isinstance(error, aiohttp.ClientConnectionError | TimeoutError):
                        return  # the server is not there
        if not self._failed:
            self._wait = LOOK

    async def _send_alert(self, http: aiohttp.ClientSession, row: RowMapping) -> None:
        try:
            occurred = datetime.fromtimestamp(row["at"], UTC).isoformat()
            body = json.dumps([{"id": row["id"], "occurred": occurred, **row["event"]}])
        except Exception:
            logging.getLogger("driftline").exception("The alert %s can't be read, and is dropped.", row["id"])
        else:
            await self._post(http, "events", body)
        await asyncio.to_thread(self._write, delete(alert_outbox).where(alert_outbox.c.id == row["id"]))

    async def _send_push(self, http: aiohttp.ClientSession, row: RowMapping) -> None:
        """Have the run created, or found, if an earlier try did it and we never heard."""
        try:
            body = json.dumps(GitPush.model_validate(row["payload"]).run)
        except Exception:
            logging.getLogger("driftline").exception("The push %s can't be read, and is dropped.", row["delivery_id"])
        else:
            async with http.get(f"{self._api}/deployments/name/{PUSH_DEPLOYMENT}") as found:
                found.raise_for_status()
                deployment = (await found.json())["id"]
            await self._post(http, f"deployments/{deployment}/create_flow_run", body)
        delivered = (
            update(webhook_deliveries)
            .where(webhook_deliveries.c.delivery_id == row["delivery_id"])
            .values(forwarded_at=now())
        )
        await asyncio.to_thread(self._write, delivered)

    async def _post(self, http: aiohttp.ClientSession, what: str, body: str) -> None:
        headers = {"content-type": "application/json"}
        async with http.post(f"{self._api}/{what}", data=body.encode(), headers=headers) as answer:
            if answer.status in NEVER:
                said = (await answer.text())[:300]
                logging.getLogger("driftline").error("Prefect does not take %s: %s", body[:2000], said)
                return
            answer.raise_for_status()

    def _rows(self, waiting: Select[Any]) -> Sequence[RowMapping]:
        with self._store.reading() as of:
            return of.execute(waiting.limit(AT_ONCE)).mappings().all()

    def _write(self, done: Update | Delete) -> None:
        with self._store.writing() as to:
            to.execute(done)
