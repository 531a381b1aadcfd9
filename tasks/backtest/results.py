"""What the replay room hands on."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from tasks.core.config import Result
from tasks.monitor.results import Action, Decision


class MonthScore(Result):
    """How good a release was in a month, over the examples whose outcome was known at its end."""

    release: str  # digest, in full
    rows: int
    metrics: dict[str, float]
    losses: Path  # Parquet: example_id, day, loss; sorted by example_id


class Challenge(Result):
    """A candidate, trained or calibrated anew, that was judged against the champion of its policy."""

    verdict: str  # promote, reject, or insufficient evidence
    failed: tuple[str, ...]  # the criteria that did not pass, a sentence each
    weights: str  # digest of the candidate's
    release: str | None  # digest; None: the champion stayed
    seconds: float  # training as the ledger counts it, features and judging when first done


class MonthResult(Result):
    """A month under a policy: who stood, how good it was, and what was done at the month's end."""

    month: datetime  # its first moment
    policy: str
    since: datetime  # as-of of the release that stood
    scored: MonthScore
    decision: Decision | None  # None: the replay ended with this month
    action: Action  # what the policy made of the decision
    challenge: Challenge | None  # None: no candidate was made


class BacktestResult(Result):
    """The report of a replay: as a page, and as JSON."""

    figures: dict[str, Any]
    page: Path
    json_file: Path
