"""The readiness of a gateway process."""

from __future__ import annotations

from typing import Any

from services.gateway.background import BackgroundLoops
from services.gateway.config_cache import ConfigCache
from services.gateway.request_log import RequestLog
from services.gateway.usage_writer import UsageWriter
from tasks.core.loops import loops


class Readiness:
    """Reads the state of the process's parts; it costs a few attribute reads."""

    def __init__(
        self, config_cache: ConfigCache, usage_writer: UsageWriter, log: RequestLog, background: BackgroundLoops
    ) -> None:
        self._config_cache, self._usage_writer = config_cache, usage_writer
        self._log, self._background = log, background

    @property
    def problem(self) -> str:
        """Why this process should get no requests; empty: it is ready."""
        if not self._config_cache.is_fresh:
            return "the store does not answer"
        if self._usage_writer.problem:
            return f"the store can't be written: {self._usage_writer.problem}"
        heartbeat = self._background.heartbeat
        return f"the store can't be written: {heartbeat.last_error}" if heartbeat.is_failing else ""

    @property
    def details(self) -> dict[str, Any]:
        """Partial failures, for operators."""
        return {
            "failing_loops": [loop.report for loop in loops.failing],
            "left_out": list(self._config_cache.routes.problems),
            "unlogged": self._log.lost,
            "unentered": self._usage_writer.dropped,
        }
