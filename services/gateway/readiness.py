"""Whether a gateway process can answer, and if not, why."""

from __future__ import annotations

from typing import Any

from services.gateway.background import Background
from services.gateway.config_cache import ConfigCache
from services.gateway.request_log import RequestLog
from services.gateway.usage_writer import UsageWriter
from tasks.core.loops import loops


class Readiness:
    """Looks at what the process is made of; costs nothing but reading a few attributes."""

    def __init__(self, memory: ConfigCache, ledger: UsageWriter, log: RequestLog, background: Background) -> None:
        self._memory, self._ledger, self._log, self._background = memory, ledger, log, background

    @property
    def problem(self) -> str:
        """Why nobody should be sent here; empty: nothing."""
        if not self._memory.fresh:
            return "the store does not answer"
        if self._ledger.problem:
            return f"the store can't be written: {self._ledger.problem}"
        heartbeat = self._background.heartbeat
        return f"the store can't be written: {heartbeat.last_error}" if heartbeat.is_failing else ""

    @property
    def details(self) -> dict[str, Any]:
        """What works only in part, for operators."""
        return {
            "failing_loops": [loop.report for loop in loops.failing],
            "left_out": list(self._memory.routes.problems),
            "unlogged": self._log.lost,
            "unentered": self._ledger.dropped,
        }
