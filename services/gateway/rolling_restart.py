"""All processes of the stack started anew, one after the other, so that new code counts and no call fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

from sqlalchemy import select

from services.gateway.usage_writer import LIVES
from services.rollout.shares import sync_endpoints
from services.runtime import stack
from services.runtime.process_specs import GATEWAY
from services.runtime.supervision import Supervisor
from services.store.database import Store, now, workers
from tasks.core.errors import Unavailable
from tasks.core.settings import Settings


def rolling_restart(
    settings: Settings, servers: stack.Servers, tell: Callable[[str], None] = lambda name: None, patience: float = 120
) -> None:
    """Restart servers, then the gateway's processes, each once another answers, then releases, whose calls wait.

    Raises: Unavailable when one does not get ready; what comes after it runs on as it did.
    """
    stack.start(settings, servers)  # what a new version has that the old one had not
    names = list(Supervisor(settings.state).programs())
    releases = [name for name in names if name.startswith("release-")]
    for name in [name for name in names if name not in releases and name != GATEWAY]:
        stack.restart(settings, name, patience)
        tell(name)
    _renew_gateway(settings, patience)
    tell(GATEWAY)
    with closing(Store(settings)) as store:
        for name in releases:
            stack.restart(settings, name, patience)
            sync_endpoints(store, settings)  # one of an earlier version listened elsewhere
            tell(name)


def _renew_gateway(settings: Settings, patience: float) -> None:
    """Its processes are others when all that lived have taken their leave."""
    with closing(Store(settings)) as store:
        before, deadline = _living(store), time.monotonic() + patience
        Supervisor(settings.state).signal(GATEWAY, "HUP")
        while before & _living(store):
            if time.monotonic() > deadline:
                raise Unavailable(
                    "A new process of the gateway did not get ready.", todo="See its log: driftline status."
                )
            time.sleep(0.1)


def _living(store: Store) -> set[str]:
    with store.reading() as of:
        return set(of.execute(select(workers.c.id).where(workers.c.last_seen > now() - LIVES)).scalars())
