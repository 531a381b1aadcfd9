"""Promise: a background loop of ours ends when its owner stops it, and at nothing else."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import Callable

import pytest

from tasks.core.loops import ALERT_AFTER, Loop, TaskLoop, ThreadLoop, loops

ERRORS = [
    ValueError("an absurd number"),
    OverflowError("int too large to convert to float"),
    RecursionError("maximum recursion depth exceeded"),
    OSError(28, "No space left on device"),
    KeyError("event"),
    MemoryError(),
    asyncio.CancelledError(),
]


class Step:
    """A step that raises what it is told to, and works otherwise."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors, self.calls, self.successes = list(errors), 0, 0
        self.worked = threading.Event()

    def __call__(self) -> None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        self.successes += 1
        if self.successes >= 2:
            self.worked.set()

    async def awaited(self) -> None:
        self()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_thread_survives_any_error(error: BaseException, caplog: pytest.LogCaptureFixture):
    step = Step(error)
    with caplog.at_level(logging.ERROR, "driftline"):
        loop = ThreadLoop("some thread", step, interval=0.001, max_backoff=0.01).start()
        assert step.worked.wait(5)
        assert loop in list(loops)
        loop.stop(5)
    check(loop, error, caplog)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_task_survives_any_error(error: BaseException, caplog: pytest.LogCaptureFixture):
    step = Step(error)

    async def run() -> Loop:
        loop = TaskLoop("some task", step.awaited, interval=0.001, max_backoff=0.01).start()
        assert loop in list(loops)
        assert await asyncio.to_thread(step.worked.wait, 5)
        await loop.stop()
        assert loop.task.cancelled()
        return loop

    with caplog.at_level(logging.ERROR, "driftline"):
        check(asyncio.run(run()), error, caplog)


def check(loop: Loop, error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    assert loop not in list(loops)
    assert loop.failures == 1
    assert not loop.is_failing
    assert type(error).__name__ in loop.report["last_error"]
    assert loop.report["last_success"] == pytest.approx(time.time(), abs=5)
    assert [record.name for record in caplog.records if loop.name in record.getMessage()] == ["driftline"]


def test_pauses_grow_up_to_a_bound(monkeypatch: pytest.MonkeyPatch):
    times: list[float] = []

    def step() -> None:
        times.append(time.monotonic())
        raise ValueError("again")

    loop = ThreadLoop("failing", step, interval=0.02, max_backoff=0.16).start()
    time.sleep(1.2)
    loop.stop(5)
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert pauses[0] >= 0.1  # a step without a pause of its own must not spin
    assert all(pause >= 0.15 for pause in pauses[1:])
    assert 3 <= len(times) <= 9
    assert loop.failing_since is not None
    assert loop.is_failing


def test_log_does_not_grow_with_every_failure(caplog: pytest.LogCaptureFixture):
    step = Step(*[ValueError("again")] * 40)
    with caplog.at_level(logging.ERROR, "driftline"):
        loop = ThreadLoop("noisy", step, max_backoff=0.0).start()
        assert step.worked.wait(5)
        loop.stop(5)
    assert loop.failures == 40
    assert len(caplog.records) == 6  # 1, 2, 4, 8, 16, 32


def test_failures_are_counted_and_alerted_once():
    counted: list[str] = []
    observe: Callable[[Loop], None] = lambda loop: counted.append(loop.name)  # noqa: E731
    loops.on_failure += [observe, lambda _: 1 / 0]  # a broken observer does no harm
    alerts: list[str] = []
    step = Step(*[ValueError("again")] * 1_000_000)
    loop = ThreadLoop("counted", step, max_backoff=0.0).start()
    try:
        while loop.failures < ALERT_AFTER:
            time.sleep(0.001)
        with pytest.raises(OSError, match="store"):
            loops.alert(unreachable)
        for _ in range(3):
            loops.alert(lambda each: alerts.append(each.name))
        assert loop in loops.failing
    finally:
        loop.stop(5)
        del loops.on_failure[-2:]
    assert alerts == ["counted"]
    assert len(counted) == loop.failures


def unreachable(_: Loop) -> None:
    raise OSError("the store does not answer")
