"""A cache of exact responses: the same request of the same team to the same release."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.gateway.call import Call
from services.gateway.parameters import is_repeatable
from services.serving.retrieval import Retrieval
from tasks.core.config import digest_of
from tasks.knowledge.labels import format_labels

MAX_CACHE_BYTES = 64 * 1024 * 1024
TTL_SECONDS = 3600.0


@dataclass(frozen=True)
class CachedResponse:
    """A response as it was sent, its tokens, and its cost."""

    body: bytes
    tokens_in: int
    tokens_out: int
    price: int
    retrieval: Retrieval | None
    guarded: tuple[tuple[tuple[str, str, str], int], ...] = ()  # what rules found in the answer
    at: float = field(default_factory=time.monotonic)

    @property
    def age(self) -> int:
        return int(time.monotonic() - self.at)


class ResponseCache:
    """The newest responses, up to a number of bytes. In memory of one process: losing them costs only time."""

    def __init__(self, max_bytes: int = MAX_CACHE_BYTES, ttl: float = TTL_SECONDS) -> None:
        self._responses: OrderedDict[str, CachedResponse] = OrderedDict()
        self._max_bytes, self._ttl, self._bytes = max_bytes, ttl, 0

    def key_for(self, call: Call, body: Mapping[str, Any]) -> str | None:
        """A digest of team, labels, release and every parameter, streaming too; None where the response may differ."""
        if call.interface == "chat" and not is_repeatable(body):
            return None
        labels = format_labels(call.key.labels)
        return digest_of([call.key.team, labels, call.share.route.digest, call.interface, body])

    def get(self, key: str) -> CachedResponse | None:
        cached = self._responses.get(key)
        if cached is None:
            return None
        if cached.age >= self._ttl:
            self._drop(key)
            return None
        self._responses.move_to_end(key)
        return cached

    def put(self, key: str, body: bytes, call: Call) -> None:
        """Store a complete response."""
        if len(body) > self._max_bytes // 8:
            return
        if key in self._responses:
            self._drop(key)
        guarded = tuple(each for each in call.guard.counts.items() if each[0][0] in ("output", "passages"))
        self._responses[key] = CachedResponse(
            body, call.tokens_in, call.tokens_out, call.cost(), call.retrieval, guarded
        )
        self._bytes += len(body)
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._responses)))

    def _drop(self, key: str) -> None:
        self._bytes -= len(self._responses.pop(key).body)
