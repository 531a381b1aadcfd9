"""Promise: a Redis that fails or hangs is reported in seconds; a key without limits never waits for it."""

from __future__ import annotations

import asyncio
import time

import pytest

from services.gateway.rate_limits import STORE_TIMEOUT, RateLimits
from services.serving.process import free_port
from services.store.api_error import ApiError
from services.store.keys import LOCAL_KEY, Key, RateLimit

LIMITED = Key("k", "t", frozenset({"predict"}), (RateLimit("key:k", 100, None),))


@pytest.mark.parametrize("hangs", [True, False])
def test_a_redis_that_is_gone_or_hangs(hangs: bool):
    asyncio.run(send(hangs))


async def send(hangs: bool) -> None:
    port = free_port()
    server = await asyncio.start_server(lambda *_: asyncio.sleep(60), "127.0.0.1", port) if hangs else None
    rates, began = RateLimits(f"redis://127.0.0.1:{port}"), time.monotonic()
    await rates.admit(LOCAL_KEY)
    with pytest.raises(ApiError) as refused:
        await rates.admit(LIMITED)
    assert (refused.value.status, refused.value.wait) == (503, 5)
    assert time.monotonic() - began < STORE_TIMEOUT + 2
    if server:
        server.close()
