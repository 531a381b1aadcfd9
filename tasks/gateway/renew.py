"""All processes of the stack started anew, one after the other, so that new code counts and no call fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

from sqlalchemy import select

from tasks.foundation.errors import Unavailable
from tasks.foundation.settings import Settings
from tasks.gateway.store import Store, workers
from tasks.serve import stack
from tasks.serve.programs import GATEWAY, servers
from tasks.serve.supervision import Supervisor


def renew(settings: Settings, tell: Callable[[str], None] = lambda name: None, patience: float = 120) -> None:
    """Restart servers, then the gateway's processes behind one more of them, then releases, whose calls wait.

    Raises: Unavailable when one does not get ready; what comes after it runs on as it did.
    """
    stack.start(settings)  # what a new version has that the old one had not
    names = list(Supervisor(settings.state).programs())
    gateways = [name for name in names if name.startswith(GATEWAY)]
    releases = [name for name in names if name.startswith("release-")]
    for name in names:
        if name not in gateways and name not in releases:
            stack.restart(settings, name, patience)
            tell(name)
    _renew_gateways(settings, gateways, tell, patience)
    for name in releases:
        stack.restart(settings, name, patience)
        tell(name)


def _renew_gateways(settings: Settings, names: list[str], tell: Callable[[str], None], patience: float) -> None:
    spare, _ = servers(settings.model_copy(update={"gateway_workers": len(names) + 1}))[-1]
    supervisor = Supervisor(settings.state)
    with closing(Store(settings)) as store:
        known = _known(store)
        supervisor.put(spare)
        supervisor.run(spare.name)
        try:
            for name in names:
                known = _await_another(store, known, patience)
                supervisor.restart(name)
                tell(name)
            _await_another(store, known, patience)
        finally:
            supervisor.remove(spare.name)


def _await_another(store: Store, known: set[str], patience: float) -> set[str]:
    """Wait until one more process says that it lives: they share a port, so that asking there does not tell."""
    deadline = time.monotonic() + patience
    while not (now := _known(store)) - known:
        if time.monotonic() > deadline:
            raise Unavailable("A new process of the gateway did not get ready.", todo="See its log: driftline status.")
        time.sleep(0.1)
    return known | now


def _known(store: Store) -> set[str]:
    with store.reading() as of:
        return set(of.execute(select(workers.c.id)).scalars())
