"""When a request to a model's server is sent again: after connection errors, 429 and faults of the server."""

from __future__ import annotations

import email.utils
import json
import random
import time
from collections.abc import Mapping
from contextlib import suppress

ATTEMPTS = 5
MAX_PAUSE = 8.0  # seconds, where the server names no time
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
EXHAUSTED = "insufficient_quota"  # code of a 429 that no waiting ends


def pause_before(attempt: int, left: float, headers: Mapping[str, str] | None = None) -> float | None:
    """Seconds to wait before the next attempt; None: no attempt is left, or none within `left` seconds.

    attempt: the number of those made; headers: of the response, with lower-case names.
    """
    if attempt >= ATTEMPTS:
        return None
    pause = _retry_after((headers or {}).get("retry-after", ""))
    if pause is None:
        pause = min(MAX_PAUSE, 0.5 * 2.0 ** (attempt - 1)) * random.uniform(0.75, 1.0)
    return pause if pause < left else None


def is_passing(status: int, body: bytes) -> bool:
    """Whether a failed response may be another one later."""
    if status == 429:
        with suppress(ValueError, KeyError, TypeError):
            return bool(json.loads(body)["error"].get("code") != EXHAUSTED)
    return status in PASSING


def _retry_after(text: str) -> float | None:
    """The seconds of a Retry-After header, which holds a number or a date; None when it can't be read."""
    with suppress(ValueError, OverflowError):
        return max(0.0, float(text))
    with suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return None
