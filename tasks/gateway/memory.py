"""What a gateway keeps in memory of the store: routes and keys, never older than the last look at their version."""

from __future__ import annotations

import asyncio
import logging
import time

from sqlalchemy import insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from tasks.foundation.errors import DriftlineError
from tasks.gateway.entries import LIVES, close_lost
from tasks.ledger.keys import Keyring, read_keyring
from tasks.ledger.store import Store, endpoints, now, releases, shares, workers
from tasks.rollout.plan import advance
from tasks.rollout.routing import Routes, routes_of
from tasks.rollout.shares import SEEN

EVERY = SEEN / 2  # seconds between looks
DECIDE = 2.0  # seconds between decisions on rollouts and on calls of dead processes
STALE = 5.0  # seconds without one after which a gateway says that it is not ready


class Memory:
    """Routes and keys of one version of the store."""

    def __init__(self, store: Store, worker: str) -> None:
        self.routes, self.keyring = Routes(), Keyring({}, guarded=True)
        self._store, self._worker = store, worker
        self._version, self._looked, self._beat, self._decided = -1, 0.0, 0.0, 0.0

    @property
    def fresh(self) -> bool:
        return time.monotonic() - self._looked < STALE

    async def watch(self) -> None:
        """Look for ever; while the store does not answer, what is known goes on to hold."""
        while True:
            try:
                await asyncio.to_thread(self.look)
            except (SQLAlchemyError, DriftlineError, ValueError) as error:
                logging.getLogger("driftline").warning("The gateway's look at its store failed: %s", error)
            await asyncio.sleep(EVERY)

    def look(self) -> None:
        """Read anew what has changed; say that we live, and settle the calls of those that don't."""
        while (version := self._store.version()) != self._version:
            routes, keyring = read_routes(self._store), read_keyring(self._store)
            if self._store.version() == version:  # else some of it is from before a change, some from after
                self.routes, self.keyring, self._version = routes, keyring, version
        self._looked = time.monotonic()
        if self._looked - self._beat > LIVES / 6:
            self._say_alive()
            self._beat = self._looked
        if self._looked - self._decided > DECIDE:
            close_lost(self._store)
            advance(self._store)
            self._decided = self._looked

    def say_gone(self) -> None:
        """The process ends in order: nobody need wait for it to be taken for dead."""
        with self._store.writing() as to:
            to.execute(workers.delete().where(workers.c.id == self._worker))

    def _say_alive(self) -> None:
        with self._store.writing() as to:
            mine = workers.c.id == self._worker
            if not to.execute(update(workers).where(mine).values(seen=now())).rowcount:
                to.execute(insert(workers).values(id=self._worker, seen=now()))
            to.execute(workers.delete().where(workers.c.seen < now() - 100 * LIVES))


def read_routes(store: Store) -> Routes:
    with store.reading() as of:
        known, running, held = (of.execute(select(table)).mappings().all() for table in (releases, endpoints, shares))
    return routes_of(known, running, held)
