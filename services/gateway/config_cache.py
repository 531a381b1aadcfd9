"""What a gateway keeps in memory of the store: routes and keys, never older than the last look at their version."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import select

from services.rollout.routing import Routes, routes_of
from services.rollout.shares import PROPAGATION_SECONDS
from services.store.database import Store, endpoints, releases, shares
from services.store.keys import Keyring, read_keyring

EVERY = PROPAGATION_SECONDS / 2  # seconds between looks
STALE = 5.0  # seconds without one after which a gateway says that it is not ready

T = TypeVar("T")


class ConfigCache:
    """Routes and keys, each of one version of the store, read apart so that neither waits for the other.

    Until the first look nobody may ask, and nothing can be asked. While the store does not answer, what is known goes
    on to hold.
    """

    def __init__(self, store: Store) -> None:
        self.routes, self.keyring = Routes(), Keyring({}, guarded=True)
        self._store = store
        self._keys_version, self._routes_version = -1, -1
        self._keys_seen = self._routes_seen = -STALE

    @property
    def fresh(self) -> bool:
        return time.monotonic() - min(self._keys_seen, self._routes_seen) < STALE

    def look(self) -> None:
        """Read anew what has changed."""
        self.look_at_keys()
        self.look_at_routes()

    def look_at_keys(self) -> None:
        if changed := self._read(read_keyring, self._keys_version):
            self.keyring, self._keys_version = changed
        self._keys_seen = time.monotonic()

    def look_at_routes(self) -> None:
        if changed := self._read(read_routes, self._routes_version):
            self.routes, self._routes_version = changed
        self._routes_seen = time.monotonic()

    def _read(self, read: Callable[[Store], T], known: int) -> tuple[T, int] | None:
        """What is read of the store, all of it of one version; None where the known version is the store's."""
        while (version := self._store.config_version()) != known:
            value = read(self._store)
            if self._store.config_version() == version:  # else some of it is from before a change, some from after
                return value, version
        return None


def read_routes(store: Store) -> Routes:
    with store.reading() as of:
        known, running, held = (of.execute(select(table)).mappings().all() for table in (releases, endpoints, shares))
    return routes_of(known, running, held)
