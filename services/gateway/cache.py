"""Exact answers, kept for whoever of the same team asks the same release the same thing again."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.gateway.call import Call
from services.gateway.parameters import is_repeatable
from tasks.core.config import digest_of

MOST_BYTES = 64 * 1024 * 1024
KEEP = 3600.0  # seconds


@dataclass(frozen=True)
class CachedResponse:
    """An answer as it was sent, its tokens, and what it had cost."""

    body: bytes
    tokens_in: int
    tokens_out: int
    price: int
    at: float = field(default_factory=time.monotonic)

    @property
    def age(self) -> int:
        return int(time.monotonic() - self.at)


class Cache:
    """The newest answers up to so many bytes; in this process only, since losing it costs nothing but time."""

    def __init__(self, most: int = MOST_BYTES, keep: float = KEEP) -> None:
        self._kept: OrderedDict[str, CachedResponse] = OrderedDict()
        self._most, self._keep, self._bytes = most, keep, 0

    def key(self, call: Call, body: Mapping[str, Any]) -> str | None:
        """Of team, release and every parameter, streaming included; None where the answer may differ next time."""
        if call.interface != "embeddings" and not is_repeatable(body):
            return None
        return digest_of([call.key.team, call.share.route.digest, call.interface, body])

    def find(self, key: str) -> CachedResponse | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.age >= self._keep:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept

    def keep(self, key: str, body: bytes, call: Call) -> None:
        """Keep a whole answer."""
        if len(body) > self._most // 8:
            return
        if key in self._kept:
            self._drop(key)
        self._kept[key] = CachedResponse(body, call.tokens_in, call.tokens_out, call.cost())
        self._bytes += len(body)
        while self._bytes > self._most:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: str) -> None:
        self._bytes -= len(self._kept.pop(key).body)
