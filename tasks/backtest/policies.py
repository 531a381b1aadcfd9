"""The policies that a backtest compares, and its months."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from tasks.core.errors import InputError
from tasks.monitor.results import Action, Decision

BASELINE = "never"  # the gain of the others is relative to it
POLICIES: dict[str, Callable[[Decision], Action]] = {
    BASELINE: lambda _: "ignore",
    "monthly": lambda _: "retrain",
    "decide": lambda decision: decision.action,
}


def policy_acts(action: Action) -> bool:
    """Whether the action changes a release, rather than alerts."""
    return action not in ("ignore", "alert")


def check_backtest(kind: str, policies: Sequence[str], start: datetime, end: datetime) -> None:
    """Check that the backtest can run, before anything is started.

    Raises: InputError.
    """
    if kind != "tabular":
        raise InputError(
            "Only tables can be replayed: a language case would be tuned anew for each month.",
            where="CASE",
            found=f"kind: {kind}",
            allowed="kind: tabular",
            todo="Judge its policy by `driftline monitor CASE --as-of DATE`, a moment at a time.",
        )
    unknown = [name for name in policies if name not in POLICIES]
    if unknown or not policies or len(set(policies)) < len(policies):
        raise InputError(
            "These are no policies to replay.",
            where="--policies",
            found=", ".join(unknown or policies) or "none",
            allowed=", ".join(POLICIES),
            todo="Name some of these, each once, with commas between.",
        )
    if end < start:
        raise InputError(
            "The replay ends before it begins.",
            where="--from, --to",
            found=f"{start:%Y-%m-%d} to {end:%Y-%m-%d}",
            allowed="--to in the month of --from, or later",
        )


def month_ends(start: datetime, end: datetime) -> list[datetime]:
    """The first of each month from that of `start` to the one after that of `end`, UTC."""
    found = [datetime(start.year, start.month, 1, tzinfo=UTC)]
    while found[-1] <= end:
        found.append(next_month(found[-1]))
    return found


def next_month(day: datetime) -> datetime:
    """The same day a month later."""
    return day.replace(year=day.year + day.month // 12, month=day.month % 12 + 1)
