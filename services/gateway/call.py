"""One call on its way through the gateway, and what it came to."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.rollout.routing import Share
from services.store.database import CACHED, FAILED, OPEN, REFUSED, now
from services.store.keys import Key

LOGGED = 20_000  # bytes of a request or an answer that the log keeps
READ = LOGGED + 2_000  # bytes of it that are read: a number or a key that reaches over the end is seen whole
MOST_TOKENS = 1_000_000_000  # of one call; more does not fit into the ledger


@dataclass
class Call:
    """Tokens in are all of the prompt's, cached ones included; money is in billionths."""

    interface: str  # predict, chat or embeddings
    key: Key
    share: Share
    entity: str = ""
    asked: bytes = b""
    answered: bytes = b""  # as much as is read for the log
    classes: dict[str, int | str] = field(default_factory=dict)  # of a table's rows by example_id, to hold labels to
    id: str = field(default_factory=lambda: f"req-{secrets.token_hex(12)}")
    at: float = field(default_factory=now)
    began: float = field(default_factory=time.perf_counter)
    state: str = OPEN
    status: int = 0
    retries: int = 0
    size: int = 0  # bytes of the request
    most_out: int = 0  # tokens that the answer may have
    reserved: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    placed_at: float = 0.0  # when it came to the release, as time.perf_counter() tells; 0: not yet
    engine_seconds: float = 0.0
    lost_seconds: float = 0.0  # at the release, on processes that died or hung
    seconds: float = 0.0
    price: int = 0
    saved: int = 0

    @property
    def is_language(self) -> bool:
        return self.interface != "predict"

    def used(self, usage: Any) -> None:
        """Take over the tokens that a language model says it used; whatever else it says there counts as none."""
        usage = usage if isinstance(usage, Mapping) else {}
        details = usage.get("prompt_tokens_details")
        self.tokens_in, self.tokens_out = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
        cached = _count(details.get("cached_tokens")) if isinstance(details, Mapping) else 0
        self.tokens_cached = min(cached, self.tokens_in)

    def cost(self) -> int:
        """What its tokens and seconds cost by the release's price table."""
        fresh = self.tokens_in - self.tokens_cached
        seconds = self.engine_seconds or (time.perf_counter() - self.placed_at if self.placed_at else 0.0)
        return self.share.route.price.of(fresh, self.tokens_cached, self.tokens_out, seconds)

    def ended(self, state: str, status: int) -> None:
        """Note how it ended. What failed costs nobody: the fault is ours or the release's."""
        self.state, self.status = state, status
        self.seconds = time.perf_counter() - self.began
        self.price = 0 if state in (CACHED, REFUSED, FAILED) else self.cost()


def _count(tokens: Any) -> int:
    """A number of tokens as a release tells it; releases elsewhere may tell anything."""
    return min(tokens, MOST_TOKENS) if isinstance(tokens, int) and tokens > 0 else 0
