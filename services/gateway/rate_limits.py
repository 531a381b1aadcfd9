"""Limits on requests and tokens a minute, for a key and for its team; in Redis where several gateways share them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError

from services.store.api_error import ApiError
from services.store.keys import Key

FEEDBACK = 600  # records a minute that one key may give
PATIENCE = 2.0  # seconds that Redis may take


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    """Raises: Refusal when the store of the limits fails or hangs."""
    try:
        async with asyncio.timeout(PATIENCE):
            yield
    except (StorageError, TimeoutError, OSError) as error:
        raise ApiError(503, "The store of the rate limits does not answer.", wait=5) from error


class RateLimits:
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
        if not key.limits:
            return
        async with _answering():
            for limit in key.limits:
                if limit.rpm:
                    await self._hit(RateLimitItemPerMinute(limit.rpm), limit.owner, "requests", 1)
                if limit.tpm and tokens:
                    await self._hit(RateLimitItemPerMinute(limit.tpm), limit.owner, "tokens", tokens)

    async def admit_feedback(self, key: Key) -> None:
        """Count a feedback record, apart from the calls.

        Raises: Refusal.
        """
        async with _answering():
            await self._hit(RateLimitItemPerMinute(FEEDBACK), f"key:{key.id}", "feedback records", 1)

    async def _hit(self, item: RateLimitItem, owner: str, what: str, cost: int) -> None:
        if await self._window.hit(item, owner, what, cost=cost):
            return
        resets = (await self._window.get_window_stats(item, owner, what)).reset_time
        kind = owner.partition(":")[0]
        raise ApiError(
            429,
            f"This {kind} may use {item.amount} {what} a minute.",
            code="rate_limit_exceeded",
            wait=max(1.0, resets - time.time()),
        )
