"""Limits on requests and tokens a minute, for a key and for its team; in Redis where several gateways share them."""

from __future__ import annotations

import time

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError

from tasks.ledger.keys import Key
from tasks.ledger.refusal import Refusal


class Rates:
    """Counts over the last 60 seconds, whenever they are asked."""

    def __init__(self, redis: str = "") -> None:
        """`redis` is redis://host:port; empty: this process's memory."""
        kept: Storage = MemoryStorage()
        if redis:
            kept = RedisStorage(f"async+{redis}", implementation="redispy", wrap_exceptions=True)
        self._window = MovingWindowRateLimiter(kept)  # type: ignore[arg-type]

    async def admit(self, key: Key, tokens: int = 0) -> None:
        """Count a call that may take so many tokens.

        Raises: Refusal.
        """
        try:
            for limit in key.limits:
                if limit.rpm:
                    await self._hit(RateLimitItemPerMinute(limit.rpm), limit.owner, "requests", 1)
                if limit.tpm and tokens:
                    await self._hit(RateLimitItemPerMinute(limit.tpm), limit.owner, "tokens", tokens)
        except StorageError as error:
            raise Refusal(503, "The store of the rate limits does not answer.", wait=5) from error

    async def _hit(self, item: RateLimitItem, owner: str, what: str, cost: int) -> None:
        if await self._window.hit(item, owner, what, cost=cost):
            return
        resets = (await self._window.get_window_stats(item, owner, what)).reset_time
        kind = owner.partition(":")[0]
        raise Refusal(
            429,
            f"This {kind} may use {item.amount} {what} a minute.",
            code="rate_limit_exceeded",
            wait=max(1.0, resets - time.time()),
        )
