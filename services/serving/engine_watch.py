"""Supervision of one engine: it checks that the engine lives and answers, and replaces it when it does not."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Generic, Protocol, TypeVar

from tasks.core.errors import Unavailable
from tasks.core.loops import ThreadLoop

CHECK_INTERVAL = 0.5  # seconds between two checks of the engine
MIN_BACKOFF, MAX_BACKOFF = 0.25, 30.0  # seconds before a start, when engines fail in a row
MAX_WAIT = 5.0  # seconds before another attempt to reach an engine that is awaited
STABLE_AFTER = 30.0  # seconds of life that reset the backoff


class WatchedEngine(Protocol):
    """An engine to watch."""

    def fault(self) -> str:
        """Why it can no longer answer; empty while it can."""
        ...

    def kill(self) -> None:
        """Kill its process."""
        ...


EngineT = TypeVar("EngineT", bound=WatchedEngine)


class EngineWatch(Generic[EngineT]):
    """The current engine of a service.

    start: a context manager that runs an engine; check: raises when an engine must not serve; waits: an engine that
    is not available at first is awaited, as another machine may start later.
    """

    def __init__(
        self,
        start: Callable[[], AbstractContextManager[EngineT]],
        check: Callable[[EngineT], None],
        *,
        waits: bool = False,
    ) -> None:
        self.fault = "It is not started yet."  # why there is no engine; empty while there is one
        self.restarts = 0
        self._start, self._check, self._waits = start, check, waits
        self._max_backoff = MAX_WAIT if waits else MAX_BACKOFF
        self._engine: EngineT | None = None
        self._opened = ExitStack()
        self._started, self._deaths = 0.0, 0
        self._closing = threading.Event()
        self._loop = ThreadLoop("engine watch", self._look, interval=CHECK_INTERVAL, max_backoff=self._max_backoff)

    @property
    def ready(self) -> bool:
        return self._engine is not None

    def open(self) -> None:
        """Start the first engine, and the checks.

        Raises: DriftlineError when it can't be started, or fails the check.
        """
        try:
            self._begin()
        except Unavailable as error:
            if not self._waits:
                raise
            self.fault = error.found or error.what
        self._loop.start()

    def close(self) -> None:
        """Stop the checks and the engine."""
        self._closing.set()
        engine, self._engine, self.fault = self._engine, None, "The service ends."
        self._loop.stop(timeout=2.0)
        if engine and self._loop.thread.is_alive():
            engine.kill()  # a check still waits for it: it hangs
        self._opened.close()

    async def engine(self, timeout: float) -> EngineT | None:
        """The engine; None when there is none within `timeout` seconds."""
        until = time.monotonic() + timeout
        while (engine := self._engine) is None and time.monotonic() < until:
            await asyncio.sleep(0.05)
        return engine

    async def replacement(self, engine: EngineT, timeout: float) -> EngineT | None:
        """The engine after one that broke off an answer: another, or the same if it lives after `timeout` seconds.

        None when there is none.
        """
        until = time.monotonic() + timeout
        while self._engine in (None, engine) and time.monotonic() < until:
            await asyncio.sleep(0.05)
        return self._engine

    def _look(self) -> None:
        engine = self._engine
        if engine and (fault := engine.fault()):
            self._end(engine, fault)
        if self._engine is None and not self._closing.wait(self._pause()):
            self._begin()
            self.restarts += 1
            logging.getLogger("driftline").warning("Another engine is up: restart %d.", self.restarts)

    def _end(self, engine: EngineT, fault: str) -> None:
        logging.getLogger("driftline").error("The engine is killed and started again: %s.", fault)
        self._engine, self.fault = None, fault
        engine.kill()

    def _pause(self) -> float:
        """Seconds before a start, doubled with each failure in a row, since the same request may come again."""
        self._deaths = 0 if time.monotonic() - self._started > STABLE_AFTER else self._deaths + 1
        return min(MIN_BACKOFF * 2.0**self._deaths, self._max_backoff) if self._deaths else 0.0

    def _begin(self) -> None:
        self._opened.close()
        self._started = time.monotonic()
        with ExitStack() as opened:
            engine = opened.enter_context(self._start())
            self._check(engine)
            self._opened = opened.pop_all()
        self._engine, self.fault = engine, ""
