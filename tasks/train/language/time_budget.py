"""The time that a tuning takes, counted over all its processes, and held against its budget."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from tasks.core.files import write_text
from tasks.train.config import Budget


class TrainingClock:
    """Counts from now on, and from what `kept` says of processes before, for one may be killed at any step."""

    def __init__(self, kept: Path, budget: Budget | None) -> None:
        self._kept, self._limit = kept, budget.seconds if budget else None
        self._begun, self._before = time.monotonic(), 0.0
        with contextlib.suppress(OSError, ValueError):
            self._before = float(kept.read_text(encoding="utf-8"))

    @property
    def seconds(self) -> float:
        """Spent so far."""
        return self._before + time.monotonic() - self._begun

    def over(self, more: float = 0.0) -> bool:
        """Whether so many seconds more would be too many; and the time till now is kept."""
        write_text(self._kept, repr(self.seconds))
        return self._limit is not None and self.seconds + more > self._limit

    def forget(self) -> None:
        """What was counted is done with."""
        self._kept.unlink(missing_ok=True)
