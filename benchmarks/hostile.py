"""Fifty honest calls a second at the gateway while other connections do everything that a connection can do wrong.

    python -m benchmarks.hostile [--seconds N] [--quick] [--json FILE]

The champion of the case is served: `driftline run flights` comes first. Prints the honest calls that were lost, how
long they took without and with the hostile connections, and by how much the gateway's process has grown.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.table import Report, arguments
from tasks.core.processes import with_parent_death_signal
from tasks.core.settings import ROOT, apply_environment, settings

CASE = "flights"
RATE = 50  # honest calls a second
ALONE = 70  # seconds without attacks: the first batch of the request log is packed by then
REQUIRED = {"honest_calls_lost": "0", "memory_growth_mb": "< 50"}
MB = 1024 * 1024


@dataclass
class Honest:
    """What became of the honest calls."""

    seconds: list[float] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)

    def quantile(self, share: float) -> float:
        """Milliseconds."""
        return 1000 * sorted(self.seconds)[int(len(self.seconds) * share)]


def main() -> None:
    options = arguments("Honest calls beside hostile connections.", seconds="How long; default: 600, quick: 20.")
    from benchmarks.serving import at_gateway, champion

    apply_environment(settings())
    seconds = float(options.seconds or (20 if options.quick else 600))
    release = champion(CASE)
    if release is None:
        print(f"  no champion of {CASE}: driftline run {CASE}")
        return
    row = json.loads((release.folder / "golden.json").read_text(encoding="utf-8"))[0]["features"]
    report = Report("Hostile connections", ["honest calls", "made", "lost", "p50 ms", "p99 ms", "worst ms"], REQUIRED)
    with tempfile.TemporaryDirectory() as folder, at_gateway(Path(folder), release) as address:
        port = int(address.rpartition(":")[2])
        gateway = gateway_process(Path(folder) / "state")
        alone = asyncio.run(honest_calls(port, f"/v1/predict/{CASE}", {"rows": [row]}, min(ALONE, seconds)))
        before = memory(gateway)
        beside, growth = beside_attacks(port, f"/v1/predict/{CASE}", {"rows": [row]}, seconds, gateway)
    for name, calls in (("alone", alone), ("beside hostile connections", beside)):
        times = [calls.quantile(share) for share in (0.5, 0.99)] + [1000 * max(calls.seconds)]
        report.row(name, len(calls.seconds), calls.lost.total(), *times)
    print(f"  the gateway had {before:.0f} MB; lost: {dict(beside.lost) or 'none'}")
    report.figure("honest_calls_lost", beside.lost.total())
    report.figure("memory_growth_mb", growth)
    report.finish(("uvicorn", "httptools", "uvloop"), options.json)


def beside_attacks(port: int, path: str, body: Any, seconds: float, pid: int) -> tuple[Honest, float]:
    """The honest calls beside all attacks, and by how many MB the process of that id grew at its most."""
    command = [sys.executable, "-m", "benchmarks.attacks", str(port), str(seconds + 2)]
    attacker = subprocess.Popen(
        with_parent_death_signal(command), cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        time.sleep(1.5)  # it has begun
        return asyncio.run(_watched(port, path, body, seconds, pid))
    finally:
        attacker.kill()
        attacker.wait()


async def _watched(port: int, path: str, body: Any, seconds: float, pid: int) -> tuple[Honest, float]:
    before, largest = memory(pid), 0.0
    calls = asyncio.create_task(honest_calls(port, path, body, seconds))
    while not calls.done():
        largest = max(largest, memory(pid))
        await asyncio.sleep(0.2)
    return await calls, largest - before


async def honest_calls(port: int, path: str, body: Any, seconds: float, rate: float = RATE) -> Honest:
    """So many calls a second, one in two over a new connection, each counted as lost unless its status is 200."""
    import aiohttp

    found, url = Honest(), f"http://127.0.0.1:{port}{path}"
    timeout = aiohttp.ClientTimeout(total=30)

    async def call(session: aiohttp.ClientSession) -> None:
        begun = time.perf_counter()
        try:
            async with session.post(url, json=body) as response:
                await response.read()
                if response.status != 200:
                    found.lost[str(response.status)] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            found.lost[type(error).__name__] += 1
        found.seconds.append(time.perf_counter() - begun)

    fresh = aiohttp.TCPConnector(force_close=True)
    async with (
        aiohttp.ClientSession(timeout=timeout) as keep_alive,
        aiohttp.ClientSession(timeout=timeout, connector=fresh) as new,
        asyncio.TaskGroup() as tasks,
    ):
        begun = time.perf_counter()
        for number in range(int(seconds * rate)):
            await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
            tasks.create_task(call(keep_alive if number % 2 else new))
    return found


def gateway_process(state: Path) -> int:
    """The id of the process that answers, of the gateway of this state folder."""
    import psutil

    from services.runtime.process_specs import GATEWAY
    from services.runtime.supervision import Supervisor

    parent = psutil.Process(Supervisor(state).processes()[GATEWAY]["pid"])
    children = parent.children()
    return next(int(each.pid) for each in children if "resource_tracker" not in " ".join(each.cmdline()))


def memory(pid: int) -> float:
    """MB that a process holds."""
    import psutil

    return float(psutil.Process(pid).memory_info().rss / MB)


if __name__ == "__main__":
    main()
