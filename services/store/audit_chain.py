"""The chain of audit records: each is canonical JSON (RFC 8785) with the digest of the record before it.

A record is stored as it is hashed. So it can be checked with SHA-256 alone, without Driftline.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

GENESIS = "0" * 64  # what the first record names as the digest before it
MAX_INTEGER = 2**53  # beyond it, JSON readers differ


def canonical_record(record: Mapping[str, Any]) -> str:
    """A record as the text that is stored and hashed."""
    import rfc8785

    return rfc8785.dumps(_storable(record)).decode()


def record_digest(record: str) -> str:
    return hashlib.sha256(record.encode()).hexdigest()


def _storable(value: Any) -> Any:
    """The value with what canonical JSON or a database can't hold as text: a decision is recorded in any case."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_storable(str(key)): _storable(each) for key, each in value.items()}
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if abs(value) < MAX_INTEGER else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Sequence):
        return [_storable(each) for each in value]
    return str(value)
