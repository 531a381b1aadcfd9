"""Promise: what the worker runs in the background survives any error, and people hear of it."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select

from flows.deployed import worker
from services.store.database import Store, alert_outbox
from tasks.core.loops import loops
from tasks.core.settings import Settings


class Absurd(Exception):
    """What nobody has thought of."""


async def fail() -> None:
    raise Absurd


def test_each_loop_survives_and_is_alerted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = Settings(state=tmp_path)
    monkeypatch.setattr(worker, "settings", lambda: config)
    names = asyncio.run(break_each())
    with closing(Store(config)) as store, store.reading() as of:
        subjects = [event["payload"]["subject"] for event in of.execute(select(alert_outbox.c.event)).scalars()]
    assert sorted(subjects) == sorted(f"The worker's loop {name!r} fails" for name in names)


async def break_each() -> list[str]:
    """Each loop fails in turn, while the others' steps go on; then it works again."""
    done: dict[str, int] = {}
    tasks = worker.background()
    for loop in tasks:
        loop.interval, loop.max_backoff = 0.01, 0.05
        if loop.name != "alerts":
            loop.step = counting(done, loop.name)
        loop.start()
    assert {loop.name for loop in loops} >= {loop.name for loop in tasks}
    for loop in tasks:
        good, loop.step, before = loop.step, fail, dict(done)
        async with asyncio.timeout(10):
            while loop.failures < 5 or any(done[name] <= before.get(name, 0) for name in done if name != loop.name):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)  # for the alert
            loop.step = good
            while loop.is_failing:
                await asyncio.sleep(0.01)
        assert "Absurd" in loop.last_error
    for loop in tasks:
        await loop.stop()
    return [loop.name for loop in tasks]


def counting(done: dict[str, int], name: str):
    async def step() -> None:
        done[name] = done.get(name, 0) + 1

    return step
