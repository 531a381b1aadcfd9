"""What the gateway itself reads of a chat's parameters, before a release does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.store.api_error import ApiError

MAX_TOKENS = 2**31 - 1  # engines count in 32 bits: what is beyond wraps around, to one token at worst
RANDOM_SEED = 2**32 - 1  # of engines that count seeds in 32 bits; -1 is the same


def check_tokens(body: Mapping[str, Any]) -> None:
    """Raises: Refusal unless each length of an answer is null or a whole number that engines can count."""
    for name in ("max_tokens", "max_completion_tokens"):
        value = body.get(name)
        if value is None:
            continue
        is_whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
        if not is_whole or not 1 <= value <= MAX_TOKENS:
            raise ApiError(400, f"{name} is a whole number from 1 to {MAX_TOKENS:,}.", param=name)


def is_repeatable(body: Mapping[str, Any]) -> bool:
    """Whether the same chat gets the same answer again: it is greedy, or has a seed that is one."""
    seed = body.get("seed")
    if seed is None:
        return bool(body.get("temperature") == 0)
    return isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 and seed % 2**32 != RANDOM_SEED
