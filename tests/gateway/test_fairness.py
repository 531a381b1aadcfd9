"""Promise: first come, first served: with 64 clients at once nobody waits much longer than the others."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from benchmarks.serving import load

pytestmark = pytest.mark.xdist_group("gateway")

IDLE = 6.0  # seconds after which neither the gateway nor a release holds a connection to the other


async def joined(**what: Any) -> dict[str, float]:
    """What 56 clients wait that come while eight others are served, all asking again at once."""
    earlier = asyncio.create_task(load(connections=8, seconds=4.5, **what))
    await asyncio.sleep(1)
    later = await load(connections=56, seconds=3, **what)
    await earlier
    return later


def test_64_clients_wait_alike(settings, table):
    """Nine calls in ten of those who came later take at most 3 times their median, from the first one on.

    The best of three counts, since other work on the machine holds up whatever it meets.
    """
    row = json.loads((table.folder / "golden.json").read_text())[0]["features"]
    url = f"http://127.0.0.1:{settings.gateway_port}/v1/predict/small"
    ratios = []
    for _ in range(3):
        time.sleep(IDLE)
        taken = asyncio.run(joined(url=url, body={"rows": [row]}))
        ratios.append(taken["p90"] / taken["p50"])
    assert min(ratios) <= 3, ratios
