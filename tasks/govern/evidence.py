"""The evidence of a release, as cards and reports read it: nothing in them comes from anywhere else."""

from __future__ import annotations

from typing import Any

from tasks.core.config import Result


class Decision(Result):
    """One audit record."""

    id: int
    at: str
    by: str
    actor_kind: str
    action: str
    details: dict[str, Any]


class Evidence(Result):
    """What is stored of a release and its case."""

    case: str
    description: str
    manifest: dict[str, Any]  # verified
    decisions: tuple[Decision, ...] = ()  # of the case
    records: int = 0  # audit records of the whole chain
    head: str = ""  # digest of the last one
    tampering: str = ""  # what verification found; empty: the chain is intact
    anchored: bool = False
    approval_required: bool = False
    training_seconds: float | None = None
    training_price: float | None = None
    energy_wh: float | None = None
    requests: int = 0  # answered by the release so far
    monitored: str = ""  # the latest decision of monitoring; empty: none

    @property
    def sealed(self) -> dict[str, Any]:
        sealed: dict[str, Any] = self.manifest["sealed"]
        return sealed

    @property
    def recorded(self) -> dict[str, Any]:
        recorded: dict[str, Any] = self.manifest["recorded"]
        return recorded

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])

    def latest(self, *actions: str) -> Decision | None:
        return next((each for each in reversed(self.decisions) if each.action in actions), None)


def missed_candidates(selftest: Decision) -> list[str]:
    """The known-bad candidates that no gate refused, of the record of a self-test."""
    return [name for name, gates in selftest.details["caught"].items() if not gates]
