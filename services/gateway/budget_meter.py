"""Grows the reservation of running calls that have a budget, and stops them when the budget is exhausted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from services.gateway.call import Call
from services.gateway.usage_writer import UsageWriter
from services.store.api_error import ApiError
from tasks.core.loops import TaskLoop

CHECK_SECONDS = 0.25  # seconds between checks of the running calls
TOP_UP_AT = 0.6  # share of its reservation at which a call gets more


class BudgetExhausted(ApiError):
    """A call was stopped because its budgets are exhausted; its usage is charged."""

    def __init__(self) -> None:
        message = "The budget of the key or its team is exhausted, so this call was stopped."
        super().__init__(429, message, code="insufficient_quota")


@dataclass
class MeteredCall:
    """A running call with a budget; money in billionths."""

    call: Call
    reserved: int
    prompt: int  # estimated cost of the prompt, until its tokens are counted
    timeout: asyncio.Timeout | None = None
    stopped: bool = False

    @property
    def likely_cost(self) -> int:
        return self.call.cost() + (0 if self.call.tokens_in else self.prompt)

    def stop(self) -> None:
        self.stopped = True
        if self.timeout is not None:
            self.timeout.reschedule(asyncio.get_running_loop().time())


class BudgetMeter:
    """Watches the running calls whose keys have budgets."""

    def __init__(self, usage_writer: UsageWriter) -> None:
        self._usage_writer = usage_writer
        self._running: dict[str, MeteredCall] = {}
        self.loop = TaskLoop("budgets", self.check, interval=CHECK_SECONDS, max_backoff=2.0)

    @contextmanager
    def watch(self, call: Call, tokens_in: int) -> Iterator[MeteredCall]:
        """Grow a call's reservation while it runs; `stopped` is set when its budgets are exhausted."""
        prompt = call.share.route.price.of(tokens_in, 0, 0, 0) if call.is_language else 0
        watched = MeteredCall(call, call.reserved, prompt)
        if call.key.budgets:
            self._running[call.id] = watched
        try:
            yield watched
        finally:
            self._running.pop(call.id, None)

    async def check(self) -> None:
        """Reserve more for the calls that need it, and stop those whose budgets are exhausted."""
        running = [each for each in self._running.values() if not each.stopped]
        growing = [each for each in running if each.likely_cost > TOP_UP_AT * each.reserved]
        await asyncio.gather(*(self._grow(each) for each in growing))

    async def _grow(self, watched: MeteredCall) -> None:
        """Double the reservation, or else add what is needed now; stop a call that used all of it."""
        missing = round(1.25 * watched.likely_cost) - watched.reserved
        for amount in dict.fromkeys((max(watched.reserved, missing), missing)):
            if amount > 0 and await self._usage_writer.top_up(watched.call, amount):
                watched.reserved += amount
                return
        if watched.call.cost() > watched.reserved:
            watched.stop()
