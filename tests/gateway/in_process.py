"""A gateway in the test's own process, without releases."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from starlette.applications import Starlette

from services.gateway.app import make_app
from services.gateway.call import Call
from services.rollout.routing import Route, Share
from services.store.keys import LOCAL_KEY, Key
from tasks.core.loops import Loop, loops
from tasks.core.settings import Settings
from tasks.release.config import Price

NOWHERE = "http://127.0.0.1:9"
ROUTE = Route("d" * 64, "shop", "tabular", (), Price(machine_hour=3.6))


def settings_of(state: Path, **more: Any) -> Settings:
    return Settings(state=state, prefect_url=NOWHERE, tracking_url=NOWHERE, **more)


@contextlib.asynccontextmanager
async def in_process_gateway(settings: Settings) -> AsyncIterator[tuple[Any, httpx.AsyncClient]]:
    """The running gateway, and a client on the same machine."""
    app: Starlette = make_app(settings)
    gateway = app.router.routes[0].endpoint.__self__  # type: ignore[attr-defined]

    async def as_owner(scope: Any, receive: Any, send: Any) -> None:
        """Mark the connection as one of the gateway's own user."""
        scope["state"] = {"connection": SimpleNamespace(is_owner=True)}
        await app(scope, receive, send)

    transport = httpx.ASGITransport(as_owner, client=("127.0.0.1", 1234))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client,
    ):
        yield gateway, client


def loop_named(name: str) -> Loop:
    return next(loop for loop in loops if loop.name == name)


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Raises: TimeoutError."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        await asyncio.sleep(0.02)


def call_of(key: Key = LOCAL_KEY, route: Route = ROUTE, interface: str = "predict") -> Call:
    return Call(
        interface, key, Share(route, "champion"), request_body=b'{"rows": []}', response_body=b'{"predictions": []}'
    )
