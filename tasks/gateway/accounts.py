"""What begins and ends every call, however it is answered: limits, reserve, ledger, figures, log."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tasks.gateway.call import Call
from tasks.gateway.entries import Ledger
from tasks.gateway.figures import Figures
from tasks.gateway.forward import PATIENCE
from tasks.gateway.log import RequestLog
from tasks.gateway.rates import Rates
from tasks.ledger.refusal import Refusal
from tasks.ledger.store import ABORTED, FAILED, REFUSED

TEMPLATE = 64  # tokens that a chat template adds to messages, at most


class Accounts:
    """Whoever begins a call ends it, with one of three words: `end`, `end_badly`, or a Refusal of `begin`."""

    def __init__(self, rates: Rates, ledger: Ledger, figures: Figures, log: RequestLog) -> None:
        self._rates, self._ledger, self._figures, self._log = rates, ledger, figures, log

    async def begin(self, call: Call, size: int, asked: Mapping[str, Any]) -> None:
        """Enter a call of so many bytes; `asked` is what a language model is asked, else empty.

        Raises: Refusal when a limit or a budget does not allow it; it is then in the ledger as refused.
        """
        route, tokens, prompt, out = call.share.route, 0, 0, 0
        if call.interface == "embeddings":
            tokens, prompt = tokens_about(size), size
        elif asked:
            longest = asked.get("max_completion_tokens") or asked.get("max_tokens") or route.answer_tokens
            out = min(longest, route.context) if isinstance(longest, int) and longest > 0 else route.context
            tokens = tokens_about(size) + out
            prompt = min(size + TEMPLATE, route.context)  # a token has a byte at least
        call.reserved = route.price.of(prompt, 0, out, PATIENCE[call.interface])
        try:
            await self._rates.admit(call.key, tokens)
            await self._ledger.open(call)
        except Refusal as refusal:
            call.key, call.reserved = replace(call.key, purses=()), 0  # nothing was reserved
            await self._ledger.open(call)
            await self.end(call, REFUSED, refusal.status)
            raise

    async def begin_unpaid(self, call: Call) -> None:
        """Enter a call that nobody asked for, and no budget pays."""
        call.key = replace(call.key, purses=())
        await self._ledger.open(call)

    async def end(self, call: Call, state: str, status: int) -> None:
        """Settle it; when this returns, it is on disk."""
        call.ended(state, status)
        await self._ledger.settle(call)
        self._figures.ended(call)
        self._log.put(call)

    async def end_badly(self, call: Call, error: BaseException) -> None:
        await self.end(call, *ending_of(error))


def ending_of(error: BaseException) -> tuple[str, int]:
    """The state and status of a call that ends with this error."""
    if isinstance(error, Refusal):
        return (REFUSED if error.status < 500 else FAILED), error.status
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return ABORTED, 499
    return FAILED, 500


def tokens_about(size: int) -> int:
    """Tokens of so many bytes of prompt, where nobody has counted them."""
    return size // 4
