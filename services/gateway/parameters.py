"""The chat parameters that the gateway itself checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.store.api_error import ApiError

MAX_TOKENS = 2**31 - 1  # engines use 32 bits: a larger number wraps around, to one token at worst
RANDOM_SEED = 2**32 - 1  # of engines with 32-bit seeds; -1 is the same


def check_tokens(body: Mapping[str, Any]) -> None:
    """Raises: ApiError unless each token limit is null or an integer that engines support."""
    for name in ("max_tokens", "max_completion_tokens"):
        value = body.get(name)
        if value is None:
            continue
        is_whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
        if not is_whole or not 1 <= value <= MAX_TOKENS:
            raise ApiError(400, f"{name} must be an integer from 1 to {MAX_TOKENS:,}.", param=name)


def is_repeatable(body: Mapping[str, Any]) -> bool:
    """Whether a repeated request gets the same response: it is greedy, or has a fixed seed."""
    seed = body.get("seed")
    if seed is None:
        return bool(body.get("temperature") == 0)
    return isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 and seed % 2**32 != RANDOM_SEED
