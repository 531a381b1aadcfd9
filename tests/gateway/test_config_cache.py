"""The cache of routes and keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import event, insert

from services.gateway.config_cache import ConfigCache
from services.rollout.shares import promote, upsert_release
from services.store.database import Store, endpoints
from tasks.core.settings import Settings

A, B = "a" * 64, "b" * 64


def test_a_change_during_a_refresh_is_seen_whole(tmp_path: Path) -> None:
    """A release gets its address and then the traffic between two reads: the champion has an address."""
    settings = Settings(state=tmp_path)
    store, another = Store(settings), Store(settings)
    for digest in (A, B):
        upsert_release(store, {"digest": digest, "sealed": {"case": "shop", "kind": "tabular"}})
    listen(store, A)
    promote(store, "shop", A, "a test")
    config_cache, changed = ConfigCache(store), []

    def change(_: Any, __: Any, statement: str, *rest: Any) -> None:
        if "FROM endpoints" in statement and not changed:
            changed.append(statement)
            listen(another, B)
            promote(another, "shop", B, "a test")

    event.listen(store.engine, "after_cursor_execute", change)
    config_cache.refresh()
    assert changed
    champion = config_cache.routes.rollouts["shop"].champion.route
    assert (champion.digest, champion.addresses) == (B, ("http://b",))
    store.close()
    another.close()


def listen(store: Store, digest: str) -> None:
    with store.changing() as connection:
        connection.execute(insert(endpoints).values(digest=digest, address=f"http://{digest[0]}"))
