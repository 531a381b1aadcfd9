"""Calls under way that a budget pays: their reserve grows with them, and they are stopped when there is no more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from services.gateway.call import Call
from services.gateway.usage_writer import UsageWriter
from services.store.api_error import ApiError
from tasks.core.loops import TaskLoop

TICK = 0.25  # seconds between looks at the calls under way
EARLY = 0.6  # share of its reserve at which a call gets more


class BudgetExhausted(ApiError):
    """A call is stopped since its budgets have no more; what it used is paid."""

    def __init__(self) -> None:
        message = "The budget of this key or its team ran out within this call, so it was stopped."
        super().__init__(429, message, code="insufficient_quota")


@dataclass
class MeteredCall:
    """A call under way that a budget pays; money in billionths."""

    call: Call
    reserved: int
    prompt: int  # what its prompt costs, as long as nobody has counted its tokens
    limit: asyncio.Timeout | None = None
    stopped: bool = False

    @property
    def likely_cost(self) -> int:
        return self.call.cost() + (0 if self.call.tokens_in else self.prompt)

    def stop(self) -> None:
        self.stopped = True
        if self.limit is not None:
            self.limit.reschedule(asyncio.get_running_loop().time())


class BudgetMeter:
    """Looks after the calls under way whose keys have budgets."""

    def __init__(self, ledger: UsageWriter) -> None:
        self._ledger = ledger
        self._running: dict[str, MeteredCall] = {}
        self.loop = TaskLoop("budgets", self.check, interval=TICK, max_backoff=2.0)

    @contextmanager
    def watch(self, call: Call, tokens_in: int) -> Iterator[MeteredCall]:
        """Have a call's reserve grow with it; `stopped` says that there is no more."""
        prompt = call.share.route.price.of(tokens_in, 0, 0, 0) if call.is_language else 0
        watched = MeteredCall(call, call.reserved, prompt)
        if call.key.budgets:
            self._running[call.id] = watched
        try:
            yield watched
        finally:
            self._running.pop(call.id, None)

    async def check(self) -> None:
        """Reserve more for the calls that need it, and stop those whose budgets have no more."""
        running = [each for each in self._running.values() if not each.stopped]
        growing = [each for each in running if each.likely_cost > EARLY * each.reserved]
        await asyncio.gather(*(self._grow(each) for each in growing))

    async def _grow(self, watched: MeteredCall) -> None:
        """Double the reserve, or else add what is needed now; stop a call that has surely used up all of its own."""
        missing = round(1.25 * watched.likely_cost) - watched.reserved
        for amount in dict.fromkeys((max(watched.reserved, missing), missing)):
            if amount > 0 and await self._ledger.top_up(watched.call, amount):
                watched.reserved += amount
                return
        if watched.call.cost() > watched.reserved:
            watched.stop()
