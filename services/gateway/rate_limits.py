"""Rate limits on requests and tokens a minute, per key and per team; in Redis if several gateways share them."""

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

FEEDBACK = 600  # records a minute from one key
STORE_TIMEOUT = 2.0  # seconds


@asynccontextmanager
async def _storage_errors() -> AsyncIterator[None]:
    """Raises: ApiError when the storage of the limits fails or hangs."""
    try:
        async with asyncio.timeout(STORE_TIMEOUT):
            yield
    except (StorageError, TimeoutError, OSError) as error:
        raise ApiError(503, "The storage of the rate limits does not answer.", wait=5) from error


class RateLimits:
    """A moving window over the last 60 seconds."""

    def __init__(self, redis: str = "") -> None:
        """`redis` is redis://host:port; empty: this process's memory."""
        storage: Storage = MemoryStorage()
        if redis:
            storage = RedisStorage(f"async+{redis}", implementation="redispy", wrap_exceptions=True)
        self._window = MovingWindowRateLimiter(storage)

    async def admit(self, key: Key, tokens: int = 0) -> None:
        """Count a call with an upper bound on its tokens.

        Raises: ApiError.
        """
        if not key.limits:
            return
        async with _storage_errors():
            for limit in key.limits:
                if limit.rpm:
                    await self._hit(RateLimitItemPerMinute(limit.rpm), limit.owner, "requests", 1)
                if limit.tpm and tokens:
                    await self._hit(RateLimitItemPerMinute(limit.tpm), limit.owner, "tokens", tokens)

    async def admit_feedback(self, key: Key) -> None:
        """Count a feedback record, separately from calls.

        Raises: ApiError.
        """
        async with _storage_errors():
            await self._hit(RateLimitItemPerMinute(FEEDBACK), f"key:{key.id}", "feedback records", 1)

    async def _hit(self, item: RateLimitItem, owner: str, what: str, cost: int) -> None:
        if await self._window.hit(item, owner, what, cost=cost):
            return
        resets = (await self._window.get_window_stats(item, owner, what)).reset_time
        kind = owner.partition(":")[0]
        raise ApiError(
            429,
            f"The limit of this {kind} is {item.amount} {what} a minute.",
            code="rate_limit_exceeded",
            wait=max(1.0, resets - time.time()),
        )
