"""A budget of calls or of time, recorded on disk before each call: a killed search goes on with what is left."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from tasks.core.errors import InputError

FORM = re.compile(r"(\d+)(s|m|h|-calls?)")
SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Limit:
    """The most calls, or the most seconds, that a search may take; None: no limit."""

    calls: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read `2000-calls`, `90s`, `10m` or `1h`. Raises: InputError."""
        match = FORM.fullmatch(text.strip())
        if match is None or not int(match[1]):
            raise InputError(
                "The budget can't be read.",
                where="--budget",
                found=text,
                allowed="calls of the model, such as 2000-calls; or time, such as 90s, 10m or 1h",
            )
        amount = int(match[1])
        return cls(seconds=amount * SECONDS[match[2]]) if match[2] in SECONDS else cls(calls=amount)


class BudgetSpent(Exception):
    """The next call would exceed the budget; the message says which."""


class CallBudget:
    """Counts calls and time. A line in `record` is a call, with the seconds since the one before it."""

    def __init__(self, limit: Limit, record: Path) -> None:
        self._limit = limit
        self._record = record
        self._lock = Lock()
        before = [float(line) for line in record.read_text().splitlines()] if record.is_file() else []
        self.calls_before = self.calls = len(before)
        self.seconds_before = self._seconds = sum(before)
        self._last = time.monotonic()

    @property
    def seconds(self) -> float:
        """The time spent, that of earlier runs included."""
        return self._seconds + time.monotonic() - self._last

    def spend_call(self) -> None:
        """Record a call that begins now. Raises: BudgetSpent."""
        with self._lock:
            if self._limit.calls is not None and self.calls >= self._limit.calls:
                raise BudgetSpent(f"the budget of {self._limit.calls:,} calls is spent")
            if self._limit.seconds is not None and self.seconds >= self._limit.seconds:
                raise BudgetSpent(f"the budget of {self._limit.seconds:g} s is spent")
            now = time.monotonic()
            elapsed, self._last = now - self._last, now
            self._record.parent.mkdir(parents=True, exist_ok=True)
            with self._record.open("a", encoding="utf-8") as stream:
                stream.write(f"{elapsed:.3f}\n")
            self._seconds += elapsed
            self.calls += 1
