"""Wait for what other processes do."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import httpx


def wait_for(is_so: Callable[[], Any], patience: float = 20, pause: float = 0.25) -> bool:
    """Whether it came to be so within the seconds; a server that can't be reached yet is waited for.

    It is looked at ever less often, until with that pause (seconds): who is asked has work to do.
    """
    deadline, growing = time.monotonic() + patience, 0.02
    while time.monotonic() < deadline:
        try:
            if is_so():
                return True
        except (httpx.TransportError, OSError):
            pass
        time.sleep(min(growing, pause))
        growing *= 1.3
    return False


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ask(http: httpx.Client, method: str, path: str, body: Any) -> Any:
    """Ask Prefect's server, again while it is busy, as Prefect's own clients do: on SQLite it answers 503 then."""
    responses: list[httpx.Response] = []

    def answered() -> bool:
        responses.append(http.request(method, path, json=body))
        return responses[-1].status_code != 503

    assert wait_for(answered, 60), responses[-1].text if responses else "it can't be reached"
    answer = responses[-1].raise_for_status()
    return answer.json() if answer.content else None
