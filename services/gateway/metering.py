"""What begins and ends every call, however it is answered: limits, reserve, ledger, figures, log."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from services.gateway.budget_meter import BudgetExhausted, BudgetMeter
from services.gateway.call import Call
from services.gateway.cost_estimates import TEMPLATE, CostEstimates
from services.gateway.metrics import GatewayMetrics
from services.gateway.rate_limits import RateLimits
from services.gateway.request_log import RequestLog
from services.gateway.upstream import PATIENCE
from services.gateway.usage_writer import UsageWriter
from services.store.api_error import ApiError
from services.store.database import ABORTED, DONE, FAILED, REFUSED
from services.store.keys import Key


class Metering:
    """Whoever begins a call ends it, with one of three words: `end`, `end_badly`, or a Refusal of `begin`."""

    def __init__(self, rates: RateLimits, ledger: UsageWriter, figures: GatewayMetrics, log: RequestLog) -> None:
        self._rates, self._ledger, self._figures, self._log = rates, ledger, figures, log
        self.meter, self._experience = BudgetMeter(ledger), CostEstimates()

    async def begin(self, call: Call, size: int, asked: Mapping[str, Any]) -> None:
        """Enter a call of so many bytes; `asked` is what a language model is asked, else empty.

        Raises: Refusal when a limit or a budget does not allow it; it is then in the ledger as refused.
        """
        route, tokens, prompt = call.share.route, 0, 0
        call.size = size
        if call.interface == "embeddings":
            tokens, prompt = estimate_tokens(size), size
        elif asked:
            longest = asked.get("max_completion_tokens") or asked.get("max_tokens") or route.answer_tokens
            bounded = isinstance(longest, int) and longest > 0
            call.most_out = min(longest, route.context) if bounded else route.context
            tokens = estimate_tokens(size) + call.most_out
            prompt = min(size + TEMPLATE, route.context)  # a token has a byte at least
        if call.key.budgets:
            worst = route.price.of(prompt, 0, call.most_out, PATIENCE[call.interface])
            call.reserved = min(self._experience.estimate(call, prompt), worst)
        try:
            await self._rates.admit(call.key, tokens)
            await self._ledger.open(call)
        except ApiError as refusal:
            await self.refuse(call, refusal.status)
            raise

    async def refuse(self, call: Call, status: int) -> None:
        """Enter a call that is not even begun."""
        call.key, call.reserved = replace(call.key, budgets=()), 0  # nothing was reserved
        with suppress(ApiError):  # it is entered when it ends, or when the ledger can be written again
            await self._ledger.open(call)
        await self.end(call, REFUSED, status)

    async def limit_feedback(self, key: Key) -> None:
        """Raises: Refusal when this key gives feedback too often."""
        await self._rates.admit_feedback(key)

    async def begin_unpaid(self, call: Call) -> None:
        """Enter a call that nobody asked for, and no budget pays."""
        call.key = replace(call.key, budgets=())
        await self._ledger.open(call)

    async def end(self, call: Call, state: str, status: int) -> None:
        """Settle it; when this returns, it is on disk.

        Raises: Refusal when it can't be settled: its answer must then not go out.
        """
        call.ended(state, status)
        try:
            await self._ledger.settle(call)
            if call.state == DONE:
                self._experience.learn(call)
        except ApiError as refusal:
            if refusal.status >= 500:
                call.ended(FAILED, refusal.status)
            raise
        finally:
            self._figures.ended(call)
            self._log.put(call)

    async def try_to_end(self, call: Call, state: str, status: int) -> ApiError | None:
        """Settle it; give the Refusal of `end` in place of raising it."""
        try:
            await self.end(call, state, status)
        except ApiError as refusal:
            return refusal
        return None

    async def end_badly(self, call: Call, error: BaseException) -> None:
        await self.end(call, *outcome_of(error))


def outcome_of(error: BaseException) -> tuple[str, int]:
    """The state and status of a call that ends with this error."""
    if isinstance(error, BudgetExhausted):
        return ABORTED, error.status
    if isinstance(error, ApiError):
        return (REFUSED if error.status < 500 else FAILED), error.status
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return ABORTED, 499
    return FAILED, 500


def estimate_tokens(size: int) -> int:
    """Tokens of so many bytes of prompt, where nobody has counted them."""
    return size // 4
