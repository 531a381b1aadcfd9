"""A cache of the routes and keys in the store, never older than the last check of their version."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import select

from services.rollout.routing import Routes, routes_of
from services.rollout.shares import PROPAGATION_SECONDS
from services.store.database import Store, endpoints, releases, shares
from services.store.keys import Keyring, read_keyring

REFRESH_SECONDS = PROPAGATION_SECONDS / 2  # seconds between checks
STALE_SECONDS = 5.0  # seconds without a check after which the gateway is not ready

T = TypeVar("T")


class ConfigCache:
    """Routes and keys, each of one version of the store, refreshed separately so that neither delays the other.

    Until the first refresh every request is refused. While the store does not answer, the cached values remain valid.
    """

    def __init__(self, store: Store) -> None:
        self.routes, self.keyring = Routes(), Keyring({}, guarded=True)
        self._store = store
        self._keys_version, self._routes_version = -1, -1
        self._keys_seen = self._routes_seen = -STALE_SECONDS

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() - min(self._keys_seen, self._routes_seen) < STALE_SECONDS

    def refresh(self) -> None:
        """Read what has changed."""
        self.refresh_keys()
        self.refresh_routes()

    def refresh_keys(self) -> None:
        if changed := self._read(read_keyring, self._keys_version):
            self.keyring, self._keys_version = changed
        self._keys_seen = time.monotonic()

    def refresh_routes(self) -> None:
        if changed := self._read(read_routes, self._routes_version):
            self.routes, self._routes_version = changed
        self._routes_seen = time.monotonic()

    def _read(self, read: Callable[[Store], T], known: int) -> tuple[T, int] | None:
        """Read a value that belongs to one version of the store; None if the store still has the known version."""
        while (version := self._store.config_version()) != known:
            value = read(self._store)
            if self._store.config_version() == version:  # otherwise a change came in between
                return value, version
        return None


def read_routes(store: Store) -> Routes:
    with store.reading() as connection:
        known, running, held = (
            connection.execute(select(table)).mappings().all() for table in (releases, endpoints, shares)
        )
    return routes_of(known, running, held)
