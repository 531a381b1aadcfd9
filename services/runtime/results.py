"""Results of the local stack."""

from __future__ import annotations

from tasks.core.config import Result


class Service(Result):
    """A process of the local stack."""

    name: str  # prefect, mlflow, or release-CASE-DIGEST12
    state: str  # ready, starting, stopped or failed
    address: str
    pid: int | None
    uptime_s: float | None
    log: str


class Served(Result):
    """A release that passed its smoke test."""

    address: str  # empty: it was served for the test only
    metrics: dict[str, float]
