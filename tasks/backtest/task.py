"""Prefect tasks of the replay room."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

from tasks.backtest.policies import policy_acts
from tasks.backtest.results import BacktestResult, MonthResult, MonthScore
from tasks.core.prefect import show_link, stage
from tasks.core.settings import Settings
from tasks.features.results import Frame
from tasks.release.results import Release
from tasks.train.config import Target


@stage("score", lambda scored: f"{scored.rows:,} rows with an outcome")
def score_month(
    release: Release, target: Target, frame: Frame, start: datetime, end: datetime, predictions: Path, folder: Path
) -> MonthScore:
    """Hold what the release predicted for a month against the outcomes known at its end."""
    from tasks.backtest.score import score
    from tasks.train.tabular.model_file import load

    return score(
        release.case, release.digest, target, load(release.model).classes, frame.path, start, end, predictions, folder
    )


@stage("report", lambda replayed: replayed.page.name)
def write_report(
    case: str,
    profile: str | None,
    task: Literal["classification", "regression"],
    machine_hour: float,
    played: list[MonthResult],
    lineage: dict[str, str],
    world: Settings,
) -> BacktestResult:
    """Write what each policy was worth, as JSON and as a page."""
    from tasks.backtest.report import write
    from tasks.backtest.summary import figures_of

    figures = figures_of(case, profile, task, machine_hour, played, lineage)
    replayed = write(figures, world.state.parent)
    show_link(f"{case}-replay", replayed.page, "What each policy was worth")
    return replayed


def challenge_summary(done: MonthResult) -> str:
    """A month under a policy in a few words."""
    told = [f"{name} {value:.4f}" for name, value in done.scored.metrics.items() if name in ("brier", "auc", "rmse")]
    told += [f"decision: {done.decision.action}"] if done.decision else []
    told += (
        [f"{done.action}: {done.challenge.verdict if done.challenge else 'done'}"] if policy_acts(done.action) else []
    )
    return ", ".join(told)
