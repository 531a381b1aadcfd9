"""Prefect tasks of backtests."""

from __future__ import annotations

from pathlib import Path

from tasks.backtest.policies import policy_acts
from tasks.backtest.results import BacktestResult, MonthResult, MonthScore
from tasks.backtest.summary import Backtest, summarise_backtest
from tasks.core.places import Places
from tasks.core.prefect import show_link, stage
from tasks.features.results import Frame
from tasks.monitor.signal import Window
from tasks.release.results import Release
from tasks.train.config import Target


@stage("score", lambda scored: f"{scored.rows:,} rows with an outcome")
def score_month(release: Release, target: Target, frame: Frame, window: Window, places: Places) -> MonthScore:
    """Score the release's predictions of a month by the outcomes known at its end."""
    from tasks.backtest.score import score
    from tasks.train.tabular.model_file import load

    return score(window, target, load(release.model).classes, frame.path, places)


@stage("report", lambda replayed: replayed.page.name)
def write_report(backtest: Backtest, months: list[MonthResult], folder: Path) -> BacktestResult:
    """Write the results of each policy, as JSON and as a page."""
    from tasks.backtest.report import write

    result = write(summarise_backtest(backtest, months), folder)
    show_link(f"{backtest.case}-replay", result.page, "The results of each policy")
    return result


def month_summary(done: MonthResult) -> str:
    """A month under a policy in a few words."""
    parts = [f"{name} {value:.4f}" for name, value in done.scored.metrics.items() if name in ("brier", "auc", "rmse")]
    parts += [f"decision: {done.decision.action}"] if done.decision else []
    parts += (
        [f"{done.action}: {done.challenge.verdict if done.challenge else 'done'}"] if policy_acts(done.action) else []
    )
    return ", ".join(parts)
