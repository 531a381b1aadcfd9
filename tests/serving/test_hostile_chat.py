"""Promise: no good call fails beside hostile ones, and none waits long because of them."""

from __future__ import annotations

import asyncio
import os

from benchmarks.hostile_chat import run
from tests.serving.small_chat import chat_release, chat_service


def test_good_calls_beside_hostile_ones(tmp_path):
    """The benchmark in small: 200 calls, one in ten hostile; the engine is the same at the end."""
    with chat_service(chat_release(tmp_path, slots=4)) as (app, client):
        address = str(client.base_url).rstrip("/")
        alone, attacked = (asyncio.run(run(address, 200, attacked)) for attacked in (False, True))
        assert alone.failed + attacked.failed == []
        assert sum(attacked.hostile.values()) == 20
        assert not [kind for kind in attacked.hostile if " 5" in kind], attacked.hostile
        slowness = max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))  # of a machine that others use too
        assert attacked.p99 - alone.p99 < 2 * slowness, attacked.hostile
        assert app.watch.restarts == 0
