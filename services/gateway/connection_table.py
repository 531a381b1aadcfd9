"""The connections that a process holds, and which of them makes room for another one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

MAX_CONNECTIONS = 4096  # of one process
OWN_FILES = 256  # of the files that the system allows a process, those that are not for its clients
PATIENCE = 1.0  # seconds that a connection is not closed for another one, though it has sent nothing


class Connection(Protocol):
    """What the table needs of one: the bytes of a request that it has begun to send, and its end."""

    other_bytes: int

    def drop(self) -> None: ...


class ConnectionTable:
    """So many in all, and half of them of one address.

    Those that wait for a request's headers make room first, oldest first, then those that rest between two requests.
    One whose request is under way never does: then the newest is refused.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._address: dict[Connection, str] = {}
        self._count: Counter[str] = Counter()
        self._waiting: dict[Connection, float] = {}  # since when; in that order
        self._resting: dict[Connection, float] = {}

    def __len__(self) -> int:
        return len(self._address)

    def add(self, connection: Connection, address: str) -> bool:
        """Take one in; False when there is no room for it."""
        if self._count[address] >= self.limit // 2 and not self._make_room(address):
            return False
        if len(self) >= self.limit and not self._make_room(None):
            return False
        self._address[connection] = address
        self._count[address] += 1
        self.waits(connection)
        return True

    def remove(self, connection: Connection) -> None:
        self._waiting.pop(connection, None)
        self._resting.pop(connection, None)
        if (address := self._address.pop(connection, None)) is not None:
            self._count[address] -= 1
            if not self._count[address]:
                del self._count[address]

    def waits(self, connection: Connection) -> None:
        """It is to send a request's headers."""
        self._resting.pop(connection, None)
        self._waiting[connection] = time.monotonic()

    def works(self, connection: Connection) -> None:
        """Its request is under way."""
        self._waiting.pop(connection, None)
        self._resting.pop(connection, None)

    def rests(self, connection: Connection) -> None:
        """Its request was answered."""
        self._waiting.pop(connection, None)
        if connection in self._address:
            self._resting[connection] = time.monotonic()

    def _make_room(self, address: str | None) -> bool:
        """Close one, of this address if one is named."""
        before = time.monotonic() - PATIENCE
        waiting: Iterable[Connection] = (c for c, since in self._waiting.items() if since < before or c.other_bytes)
        resting: Iterable[Connection] = (c for c, since in self._resting.items() if since < before)
        for candidates in (waiting, resting):
            for connection in candidates:
                if address is None or self._address[connection] == address:
                    self.remove(connection)
                    connection.drop()
                    return True
        return False
