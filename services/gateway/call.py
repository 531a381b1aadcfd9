"""One call through the gateway: its request, its response and its usage."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.gateway.guard_record import GuardRecord
from services.rollout.routing import Share
from services.serving.retrieval import Retrieval
from services.store.database import CACHED, FAILED, OPEN, REFUSED, now
from services.store.keys import Key

MAX_LOGGED = 20_000  # bytes of a request or a response that the log stores
MAX_READ = MAX_LOGGED + 2_000  # bytes read of them, so that redaction recognises a value across the end
MAX_CALL_TOKENS = 1_000_000_000  # maximum of the store's columns


@dataclass
class Call:
    """Tokens in are all of the prompt's, cached ones included; money is in billionths."""

    interface: str  # predict, chat, embeddings or search
    key: Key
    share: Share
    entity: str = ""
    request_body: bytes = b""
    response_body: bytes = b""  # as much as the log reads
    classes: dict[str, int | str] = field(default_factory=dict)  # predicted, by example_id; labels must be of these
    id: str = field(default_factory=lambda: f"req-{secrets.token_hex(12)}")
    at: float = field(default_factory=now)
    started: float = field(default_factory=time.perf_counter)
    state: str = OPEN
    status: int = 0
    retries: int = 0
    size: int = 0  # bytes of the request
    max_tokens_out: int = 0  # tokens that the response may have
    reserved: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    dispatched_at: float = 0.0  # when it reached the release, by time.perf_counter(); 0: not yet
    engine_seconds: float = 0.0
    lost_seconds: float = 0.0  # spent in release processes that died or hung
    seconds: float = 0.0
    price: int = 0
    saved: int = 0
    guard: GuardRecord = field(default_factory=GuardRecord)
    wants_passages: bool = False  # whether the client asked for them
    retrieval: Retrieval | None = None  # of a release with a knowledge base

    @property
    def is_language(self) -> bool:
        return self.interface != "predict"

    def record_usage(self, usage: Any) -> None:
        """Record the token counts of a release's `usage`; anything malformed counts as zero."""
        usage = usage if isinstance(usage, Mapping) else {}
        details = usage.get("prompt_tokens_details")
        self.tokens_in, self.tokens_out = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
        cached = _count(details.get("cached_tokens")) if isinstance(details, Mapping) else 0
        self.tokens_cached = min(cached, self.tokens_in)

    def cost(self) -> int:
        """The cost of its tokens and seconds by the release's price table."""
        fresh = self.tokens_in - self.tokens_cached
        seconds = self.engine_seconds or (time.perf_counter() - self.dispatched_at if self.dispatched_at else 0.0)
        return self.share.route.price.of(fresh, self.tokens_cached, self.tokens_out, seconds)

    def finish(self, state: str, status: int) -> None:
        """Record the outcome. A failed call is free: the fault is the gateway's or the release's."""
        self.state, self.status = state, status
        self.seconds = time.perf_counter() - self.started
        self.price = 0 if state in (CACHED, REFUSED, FAILED) else self.cost()


def _count(tokens: Any) -> int:
    """A release's token count; an external server may send anything."""
    return min(tokens, MAX_CALL_TOKENS) if isinstance(tokens, int) and tokens > 0 else 0
