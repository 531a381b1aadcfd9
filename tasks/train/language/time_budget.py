"""The time that a tuning takes over all its restarts, compared with its budget."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from tasks.core.files import write_text
from tasks.train.config import Budget


class TrainingClock:
    """Counts from now on, plus the time that `file` holds of killed runs before."""

    def __init__(self, file: Path, budget: Budget | None) -> None:
        self._file, self._limit = file, budget.seconds if budget else None
        self._begun, self._before = time.monotonic(), 0.0
        with contextlib.suppress(OSError, ValueError):
            self._before = float(file.read_text(encoding="utf-8"))

    @property
    def seconds(self) -> float:
        """Seconds spent so far."""
        return self._before + time.monotonic() - self._begun

    def over(self, more: float = 0.0) -> bool:
        """Whether `more` seconds would exceed the budget; stores the time spent so far."""
        write_text(self._file, repr(self.seconds))
        return self._limit is not None and self.seconds + more > self._limit

    def forget(self) -> None:
        """Delete the stored time."""
        self._file.unlink(missing_ok=True)
