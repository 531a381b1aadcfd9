"""What a backtest returns."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from tasks.core.config import Result
from tasks.monitor.results import Action, Decision


class MonthScore(Result):
    """The scores of a release in a month, over the examples whose outcome was known at its end."""

    release: str  # digest, in full
    rows: int
    metrics: dict[str, float]
    losses: Path  # Parquet: example_id, day, loss; sorted by example_id


class Challenge(Result):
    """A trained or recalibrated candidate that was evaluated against the champion of its policy."""

    verdict: str  # promote, reject, or insufficient evidence
    failed: tuple[str, ...]  # the criteria that did not pass, a sentence each
    weights: str  # digest of the candidate's
    release: str | None  # digest; None: the champion stayed
    seconds: float  # training as recorded, features and evaluation as first measured


class MonthResult(Result):
    """A month under a policy: the release, its scores, and the action at the month's end."""

    month: datetime  # its first moment
    policy: str
    since: datetime  # as-of of the release
    scored: MonthScore
    decision: Decision | None  # None: the backtest ended with this month
    action: Action  # the policy's reaction to the decision
    challenge: Challenge | None  # None: no candidate was created


class BacktestResult(Result):
    """The report of a backtest: as a page, and as JSON."""

    figures: dict[str, Any]
    page: Path
    json_file: Path
