"""Begins and ends every call: rate limits, budgets, usage records, metrics, request log."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from services.gateway.budget_meter import BudgetExhausted, BudgetMeter
from services.gateway.call import Call
from services.gateway.cost_estimates import TEMPLATE_TOKENS, CostEstimates
from services.gateway.metrics import GatewayMetrics
from services.gateway.rate_limits import RateLimits
from services.gateway.request_log import RequestLog
from services.gateway.upstream import TIMEOUTS
from services.gateway.usage_writer import UsageWriter
from services.store.api_error import ApiError
from services.store.database import ABORTED, DONE, FAILED, REFUSED
from services.store.keys import Key
from tasks.language.chat_request import MAX_CHOICES


class Metering:
    """Every call that is begun must be ended, by `end` or `fail`; an ApiError of `begin` ends it too."""

    def __init__(
        self, rate_limits: RateLimits, usage_writer: UsageWriter, metrics: GatewayMetrics, log: RequestLog
    ) -> None:
        self._rate_limits, self._usage_writer, self._metrics, self._log = rate_limits, usage_writer, metrics, log
        self.meter, self._cost_estimates = BudgetMeter(usage_writer), CostEstimates()

    async def begin(self, call: Call, size: int, request: Mapping[str, Any]) -> None:
        """Record a call of `size` bytes and reserve its budget; `request` is a language call's body, else empty.

        Raises: ApiError when a limit or a budget refuses it; it is then recorded as refused.
        """
        route, tokens, prompt = call.share.route, 0, 0
        call.size = size
        if call.interface in ("embeddings", "search"):
            tokens, prompt = estimate_tokens(size), size
        elif request:
            longest = request.get("max_completion_tokens") or request.get("max_tokens") or route.answer_tokens
            bounded = isinstance(longest, int) and longest > 0
            count = request.get("n")
            answers = min(count, MAX_CHOICES) if isinstance(count, int) and count > 0 else 1
            call.max_tokens_out = (min(longest, route.context) if bounded else route.context) * answers
            tokens = estimate_tokens(size) + call.max_tokens_out
            prompt = min(size + TEMPLATE_TOKENS, route.context)  # a token has at least one byte
        if call.key.budgets:
            worst = route.price.of(prompt, 0, call.max_tokens_out, TIMEOUTS[call.interface])
            call.reserved = min(self._cost_estimates.estimate(call, prompt), worst)
        try:
            if not call.retries:  # a client's request counts once
                await self._rate_limits.admit(call.key, tokens)
            await self._usage_writer.open(call)
        except ApiError as error:
            await self.refuse(call, error.status)
            raise

    async def refuse(self, call: Call, status: int) -> None:
        """Record a call that is refused before it begins."""
        call.key, call.reserved = replace(call.key, budgets=()), 0  # nothing was reserved
        with suppress(ApiError):  # it is recorded when it ends, or when the store is writable again
            await self._usage_writer.open(call)
        await self.end(call, REFUSED, status)

    async def limit_feedback(self, key: Key) -> None:
        """Raises: ApiError when this key sends feedback too often."""
        await self._rate_limits.admit_feedback(key)

    async def begin_unmetered(self, call: Call) -> None:
        """Record a call that no client sent and no budget pays, such as a shadow's."""
        call.key = replace(call.key, budgets=())
        await self._usage_writer.open(call)

    async def end(self, call: Call, state: str, status: int) -> None:
        """Settle a call; when this returns, its record is on disk.

        Raises: ApiError when it can't be settled: its response must then not be sent.
        """
        call.finish(state, status)
        try:
            await self._usage_writer.settle(call)
            if call.state == DONE:
                self._cost_estimates.observe(call)
        except ApiError as error:
            if error.status >= 500:
                call.finish(FAILED, error.status)
            raise
        finally:
            self._metrics.observe_call(call)
            self._log.put(call)

    async def try_to_end(self, call: Call, state: str, status: int) -> ApiError | None:
        """Settle a call; return the ApiError of `end` instead of raising it."""
        try:
            await self.end(call, state, status)
        except ApiError as error:
            return error
        return None

    async def fail(self, call: Call, error: BaseException) -> None:
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
    """Estimate the tokens of a prompt of `size` bytes that was not tokenized."""
    return size // 4
