"""One call on its way through the gateway, and what it came to."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.ledger.keys import Key
from tasks.ledger.store import CACHED, OPEN, REFUSED, now
from tasks.rollout.routing import Share

LOGGED = 20_000  # bytes of a request or an answer that the log keeps


@dataclass
class Call:
    """Tokens in are all of the prompt's, cached ones included; money is in billionths."""

    interface: str  # predict, chat or embeddings
    key: Key
    share: Share
    entity: str = ""
    asked: bytes = b""
    answered: bytes = b""  # as much as is logged
    classes: dict[str, int | str] = field(default_factory=dict)  # of a table's rows by example_id, to hold labels to
    id: str = field(default_factory=lambda: f"req-{secrets.token_hex(12)}")
    at: float = field(default_factory=now)
    began: float = field(default_factory=time.perf_counter)
    state: str = OPEN
    status: int = 0
    retries: int = 0
    reserved: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    engine_seconds: float = 0.0
    seconds: float = 0.0
    price: int = 0
    saved: int = 0

    @property
    def is_language(self) -> bool:
        return self.interface != "predict"

    def used(self, usage: Mapping[str, Any]) -> None:
        """Take over the tokens that a language model says it used."""
        self.tokens_in = usage.get("prompt_tokens") or 0
        self.tokens_out = usage.get("completion_tokens") or 0
        self.tokens_cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0

    def cost(self) -> int:
        """What its tokens and seconds cost by the release's price table."""
        fresh = self.tokens_in - self.tokens_cached
        return self.share.route.price.of(fresh, self.tokens_cached, self.tokens_out, self.engine_seconds)

    def ended(self, state: str, status: int) -> None:
        self.state, self.status = state, status
        self.seconds = time.perf_counter() - self.began
        self.price = 0 if state in (CACHED, REFUSED) else self.cost()
