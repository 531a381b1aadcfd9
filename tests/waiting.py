"""Wait for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx


def wait_for(is_so: Callable[[], Any], patience: float = 20) -> bool:
    """Whether it came to be so within the seconds; a server that can't be reached yet is waited for."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            if is_so():
                return True
        except (httpx.TransportError, OSError):
            pass
        time.sleep(0.05)
    return False
