"""Promise: an alert or a push that can't be delivered delays no other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import insert, select, text

from services.gateway.outbox import Outbox
from services.store.database import Store, alert_outbox, now, webhook_deliveries
from tasks.core.git_push import GitPush
from tasks.core.loops import TaskLoop
from tests.gateway.in_process import settings_of

PUSH = GitPush(id="d-2", ref="refs/heads/main", old="a" * 40, new="b" * 40, repository="r", who="w")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(settings_of(tmp_path))) as store:
        yield store


class Server:
    """A fake of Prefect's server, with its failures."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.runs: list[Any] = []

    async def event(self, http: web.Request) -> web.Response:
        (event,) = await http.json()
        if event["id"] == "breaks the server":
            raise web.HTTPInternalServerError
        if event["id"] == "is never taken":
            raise web.HTTPUnprocessableEntity
        self.events.append(event["id"])
        return web.Response(status=204)

    async def deployment(self, _: web.Request) -> web.Response:
        return web.json_response({"id": "deployment"})

    async def run(self, http: web.Request) -> web.Response:
        self.runs.append(await http.json())
        return web.json_response({}, status=201)


async def deliver(store: Store, state: Path, enough: Any) -> Server:
    server, app = Server(), web.Application()
    app.router.add_post("/events", server.event)
    app.router.add_get("/deployments/name/{flow}/{name}", server.deployment)
    app.router.add_post("/deployments/deployment/create_flow_run", server.run)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    outbox = Outbox(store, settings_of(state).model_copy(update={"prefect_url": f"http://127.0.0.1:{port}"}))
    loop = TaskLoop("delivery_id", outbox.deliver).start()
    try:
        async with asyncio.timeout(20):
            while not enough(server):
                outbox.notify()
                await asyncio.sleep(0.05)
    finally:
        await loop.stop()
        await runner.cleanup()
    assert loop.failures == 0
    return server


def test_bad_rows_hold_up_no_good_ones(store: Store, tmp_path: Path):
    with store.writing() as connection:
        for number, id_ in enumerate(("breaks the server", "is never taken", "good", "also good")):
            connection.execute(insert(alert_outbox).values(id=id_, at=number, event={"event": "driftline.alert"}))
        for id_, at, event in (("no json", 0, "{{"), ("no object", 0, "[1]"), ("no moment", "9e999", "{}")):
            connection.execute(text(f"INSERT INTO alert_outbox VALUES ('{id_}', {at}, '{event}')"))
        connection.execute(
            insert(webhook_deliveries).values(
                delivery_id="d-1", body_digest="1", received_at=0, payload={"nothing": "of a push"}
            )
        )
        connection.execute(
            insert(webhook_deliveries).values(
                delivery_id="d-2", body_digest="2", received_at=now(), payload=PUSH.model_dump()
            )
        )
    server = asyncio.run(deliver(store, tmp_path, lambda server: len(server.events) >= 2 and server.runs))
    assert server.events == ["good", "also good"]
    assert [run["idempotency_key"] for run in server.runs] == ["push d-2"]
    with store.reading() as connection:
        assert connection.execute(select(alert_outbox.c.id)).scalars().all() == [
            "breaks the server"
        ]  # it is tried again
        assert (
            connection.execute(
                select(webhook_deliveries.c.delivery_id).where(webhook_deliveries.c.forwarded_at.is_(None))
            ).all()
            == []
        )
