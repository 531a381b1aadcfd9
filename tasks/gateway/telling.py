"""What Prefect's server is to be told lies in the store until it has heard: a push becomes a run, an alert an event."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime
from typing import Any

import aiohttp
from sqlalchemy import Delete, RowMapping, Select, Update, delete, select, update
from sqlalchemy.exc import SQLAlchemyError

from tasks.foundation.push import DEPLOYMENT, Push
from tasks.foundation.settings import Settings
from tasks.ledger.store import Store, alerts, now, pushes

ALERTS = select(alerts).order_by(alerts.c.at)
PUSHES = select(pushes).where(pushes.c.delivered_at.is_(None)).order_by(pushes.c.at)
LOOK, MOST_WAIT = 2.0, 32.0  # seconds between tries, ever longer; a push that comes is told at once
NEVER = (400, 409, 413, 422)  # Prefect will not take it, however often it is asked


class Telling:
    """Tells in the background. What two gateways tell, or one tells twice, is one run, and one alert of its cause."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._api, self._headers = store, settings.prefect_api, settings.prefect_headers
        self._came = asyncio.Event()

    def at_once(self) -> None:
        """Something has come that should not wait for the next look."""
        self._came.set()

    async def tell(self) -> None:
        """Tell of everything, oldest first, for ever."""
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(headers=self._headers, timeout=timeout, trust_env=False) as http:
            wait = LOOK
            while True:
                self._came.clear()
                try:
                    while row := await asyncio.to_thread(self._first, ALERTS):
                        await self._send_alert(http, row)
                        await asyncio.to_thread(self._write, delete(alerts).where(alerts.c.id == row["id"]))
                    while row := await asyncio.to_thread(self._first, PUSHES):
                        await self._send_push(http, Push.model_validate(row["push"]))
                        told = update(pushes).where(pushes.c.delivery == row["delivery"]).values(delivered_at=now())
                        await asyncio.to_thread(self._write, told)
                    wait = LOOK
                except (aiohttp.ClientError, TimeoutError, SQLAlchemyError, KeyError) as error:
                    logging.getLogger("driftline").warning("A push or an alert waits for Prefect: %r", error)
                    wait = min(2 * wait, MOST_WAIT)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._came.wait(), wait)

    async def _send_alert(self, http: aiohttp.ClientSession, row: RowMapping) -> None:
        occurred = datetime.fromtimestamp(row["at"], UTC).isoformat()
        await self._post(http, "events", [{"id": row["id"], "occurred": occurred, **row["event"]}])

    async def _send_push(self, http: aiohttp.ClientSession, push: Push) -> None:
        """Have the run created, or found, if an earlier try did it and we never heard."""
        async with http.get(f"{self._api}/deployments/name/{DEPLOYMENT}") as found:
            found.raise_for_status()
            deployment = (await found.json())["id"]
        await self._post(http, f"deployments/{deployment}/create_flow_run", push.run)

    async def _post(self, http: aiohttp.ClientSession, what: str, body: Any) -> None:
        async with http.post(f"{self._api}/{what}", json=body) as answer:
            if answer.status in NEVER:
                said = (await answer.text())[:300]
                logging.getLogger("driftline").error("Prefect does not take %s: %s", body, said)
                return
            answer.raise_for_status()

    def _first(self, waiting: Select[Any]) -> RowMapping | None:
        with self._store.reading() as of:
            return of.execute(waiting.limit(1)).mappings().first()

    def _write(self, done: Update | Delete) -> None:
        with self._store.writing() as to:
            to.execute(done)
