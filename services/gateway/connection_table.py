"""The open connections of a process, and which of them is closed to make room for another one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

MAX_CONNECTIONS = 4096  # of one process
OWN_FILES = 256  # of the files that the system allows a process, those reserved for other uses
GRACE_SECONDS = 1.0  # seconds in which a silent connection is not closed for another one


class Connection(Protocol):
    """What the table needs of a connection: the bytes of an incomplete request, and a way to close it."""

    overhead_bytes: int

    def drop(self) -> None: ...


class ConnectionTable:
    """At most `limit` connections, and half of them from one address.

    Connections that await a request's headers are closed first, oldest first, then idle ones between two requests.
    A connection with a running request is never closed: then the new one is refused.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._address: dict[Connection, str] = {}
        self._count: Counter[str] = Counter()
        self._awaiting_head: dict[Connection, float] = {}  # the time since when, oldest first
        self._idle: dict[Connection, float] = {}

    def __len__(self) -> int:
        return len(self._address)

    def add(self, connection: Connection, address: str) -> bool:
        """Add a connection; False when there is no room for it."""
        if self._count[address] >= self.limit // 2 and not self._make_room(address):
            return False
        if len(self) >= self.limit and not self._make_room(None):
            return False
        self._address[connection] = address
        self._count[address] += 1
        self.await_head(connection)
        return True

    def remove(self, connection: Connection) -> None:
        self._awaiting_head.pop(connection, None)
        self._idle.pop(connection, None)
        if (address := self._address.pop(connection, None)) is not None:
            self._count[address] -= 1
            if not self._count[address]:
                del self._count[address]

    def await_head(self, connection: Connection) -> None:
        """The client has to send a request's headers."""
        self._idle.pop(connection, None)
        self._awaiting_head[connection] = time.monotonic()

    def mark_busy(self, connection: Connection) -> None:
        """Its request is running."""
        self._awaiting_head.pop(connection, None)
        self._idle.pop(connection, None)

    def mark_idle(self, connection: Connection) -> None:
        """Its request was answered, and it waits for the next one."""
        self._awaiting_head.pop(connection, None)
        if connection in self._address:
            self._idle[connection] = time.monotonic()

    def _make_room(self, address: str | None) -> bool:
        """Close one connection, of this address unless it is None."""
        before = time.monotonic() - GRACE_SECONDS
        heads: Iterable[Connection] = (c for c, at in self._awaiting_head.items() if at < before or c.overhead_bytes)
        idle: Iterable[Connection] = (c for c, since in self._idle.items() if since < before)
        for candidates in (heads, idle):
            for connection in candidates:
                if address is None or self._address[connection] == address:
                    self.remove(connection)
                    connection.drop()
                    return True
        return False
