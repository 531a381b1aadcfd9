"""Restarts all processes of the stack, one after the other, without failing a call."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

from sqlalchemy import select

from services.gateway.usage_writer import WORKER_TIMEOUT
from services.rollout.shares import sync_endpoints
from services.runtime import stack
from services.runtime.process_specs import GATEWAY
from services.runtime.supervision import Supervisor
from services.store.database import Store, now, workers
from tasks.core.errors import Unavailable
from tasks.core.settings import Settings


def rolling_restart(
    settings: Settings,
    servers: stack.Servers,
    on_restart: Callable[[str], None] = lambda name: None,
    timeout: float = 120,
) -> None:
    """Restart servers, then the gateway's workers, each once its successor is ready, then releases, whose calls wait.

    Raises: Unavailable when a process does not get ready; the processes after it are left as they are.
    """
    stack.start(settings, servers)  # programs that are new in this version
    names = list(Supervisor(settings.state).programs())
    releases = [name for name in names if name.startswith("release-")]
    for name in [name for name in names if name not in releases and name != GATEWAY]:
        stack.restart(settings, name, timeout)
        on_restart(name)
    _restart_gateway(settings, timeout)
    on_restart(GATEWAY)
    with closing(Store(settings)) as store:
        for name in releases:
            stack.restart(settings, name, timeout)
            sync_endpoints(store, settings)  # an earlier version may have had another address
            on_restart(name)


def _restart_gateway(settings: Settings, timeout: float) -> None:
    """Restart the gateway's workers, and wait until all earlier ones have deregistered."""
    with closing(Store(settings)) as store:
        earlier, deadline = _live_workers(store), time.monotonic() + timeout
        Supervisor(settings.state).signal(GATEWAY, "HUP")
        while earlier & _live_workers(store):
            if time.monotonic() > deadline:
                raise Unavailable(
                    "A new worker of the gateway did not get ready.", todo="See its log: driftline status."
                )
            time.sleep(0.1)


def _live_workers(store: Store) -> set[str]:
    with store.reading() as connection:
        return set(
            connection.execute(select(workers.c.id).where(workers.c.last_seen > now() - WORKER_TIMEOUT)).scalars()
        )
