"""Background loops that only their owner stops: a step that raises is logged, counted and retried."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

MAX_BACKOFF = 30.0  # seconds between two calls of a step that fails again and again
MIN_BACKOFF = 0.1  # seconds after a first failure
ALERT_AFTER = 3  # consecutive failures before an alert is sent


class Loop:
    """The state of a repeated step. Use TaskLoop or ThreadLoop.

    `interval` is in seconds between the end of a step and the next one, `max_backoff` after failures.
    """

    def __init__(
        self, name: str, step: Callable[[], Any], *, interval: float = 0.0, max_backoff: float = MAX_BACKOFF
    ) -> None:
        self.name = name
        self.failures = 0  # since the start
        self.failures_in_a_row = 0
        self.last_error = ""
        self.last_success: float | None = None  # seconds since 1970
        self.failing_since: float | None = None
        self.alerted = False  # an alert about this series of failures was raised
        self.step, self.interval, self.max_backoff = step, interval, max_backoff

    @property
    def is_failing(self) -> bool:
        return self.failures_in_a_row > 0

    @property
    def report(self) -> dict[str, Any]:
        """The loop's state as JSON values."""
        return {
            "name": self.name,
            "failures": self.failures,
            "last_error": self.last_error or None,
            "failing_since": self.failing_since,
            "last_success": self.last_success,
        }

    def _succeeded(self) -> float:
        """Note a success; return the seconds until the next step."""
        if self.is_failing:
            logging.getLogger("driftline").warning("The loop %r works again.", self.name)
        self.last_success = time.time()
        self.failures_in_a_row, self.failing_since, self.alerted = 0, None, False
        return self.interval

    def _failed(self, error: BaseException) -> float:
        """Note a failure; return the seconds until the next step, more with each one in a row."""
        self.failures += 1
        self.failures_in_a_row += 1
        self.last_error = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"
        self.failing_since = self.failing_since or time.time()
        row = self.failures_in_a_row
        if row & (row - 1) == 0:  # the 1st, 2nd, 4th, 8th: a log must not fill the disk
            logging.getLogger("driftline").error(
                "The loop %r failed (%d in a row) and goes on: %s", self.name, row, self.last_error, exc_info=error
            )
        loops.notify(self)
        return float(min(max(self.interval, MIN_BACKOFF) * 2 ** min(row - 1, 20), self.max_backoff))


class TaskLoop(Loop):
    """An asyncio task that awaits its step again and again until it is cancelled."""

    task: asyncio.Task[None]

    def start(self) -> TaskLoop:
        """Start within the running event loop."""
        self.task = asyncio.create_task(self._repeat(), name=self.name)
        loops.add(self)
        return self

    async def stop(self) -> None:
        """Cancel the task and wait for its end."""
        self.task.cancel()
        await asyncio.wait([self.task])
        loops.remove(self)  # a task that never ran could not remove itself

    async def _repeat(self) -> None:
        task = asyncio.current_task()
        try:
            while True:
                try:
                    await self.step()
                    pause = self._succeeded()
                except asyncio.CancelledError as error:
                    if task and task.cancelling():
                        raise
                    pause = self._failed(error)  # the step's own await was cancelled, not this loop
                except Exception as error:  # noqa: BLE001 (the purpose of this class)
                    pause = self._failed(error)
                await asyncio.sleep(pause)
        finally:
            loops.remove(self)


class ThreadLoop(Loop):
    """A daemon thread that calls its step repeatedly until it is stopped; a step may block."""

    def start(self) -> ThreadLoop:
        """Start the thread."""
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._repeat, name=self.name, daemon=True)
        loops.add(self)
        self.thread.start()
        return self

    def stop(self, timeout: float | None = None) -> None:
        """Start no further step, and wait for the current one; timeout in seconds."""
        self.stopping.set()
        self.thread.join(timeout)

    def _repeat(self) -> None:
        try:
            pause = 0.0
            while not self.stopping.wait(pause):
                try:
                    self.step()
                    pause = self._succeeded()
                except BaseException as error:  # noqa: BLE001 (nothing cancels a thread, so no error is meant to end it)
                    pause = self._failed(error)
        finally:
            loops.remove(self)


class Loops:
    """The running loops of this process, for readiness, metrics and alerts."""

    def __init__(self) -> None:
        self._running: list[Loop] = []
        self.on_failure: list[Callable[[Loop], None]] = []  # called with every failure, in the loop's own thread

    def __iter__(self) -> Iterator[Loop]:
        return iter(list(self._running))

    def add(self, loop: Loop) -> None:
        self._running.append(loop)

    def remove(self, loop: Loop) -> None:
        with contextlib.suppress(ValueError):
            self._running.remove(loop)

    def notify(self, loop: Loop) -> None:
        for observe in list(self.on_failure):
            with contextlib.suppress(Exception):  # a metric that fails to be written must not end the loop
                observe(loop)

    @property
    def failing(self) -> list[Loop]:
        return [loop for loop in self if loop.is_failing]

    def alert(self, send: Callable[[Loop], None]) -> None:
        """Send an alert about each loop that keeps failing, once for each series of failures.

        Raises: what `send` raises; the alert is then sent at the next call.
        """
        for loop in self:
            if loop.failures_in_a_row >= ALERT_AFTER and not loop.alerted:
                send(loop)
                loop.alerted = True


loops = Loops()
