"""Prefect tasks of the evaluate room."""

from __future__ import annotations

from pathlib import Path

from tasks.evaluate.config import Evaluate
from tasks.evaluate.results import Verdict
from tasks.foundation.task import show_table, show_text, stage
from tasks.foundation.tracking import Tracking
from tasks.train.config import Target, Train
from tasks.train.results import Candidate


@stage("judge the candidate", lambda verdict: f"{verdict.decision}: {_figures(verdict)}")
def judge_candidate(
    candidate: Candidate,
    target: Target,
    train: Train,
    config: Evaluate,
    state: Path,
    tracking: Tracking,
    champion_model: Path | None,
    champion_digest: str | None,
) -> Verdict:
    """Hold the candidate's answers on its hold-out against every gate and the champion."""
    from tasks.evaluate.gates import explain, judge

    verdict = judge(
        candidate,
        target,
        train.split,
        config,
        state,
        champion_model,
        champion_digest,
        threads=train.threads,
        tracking=tracking,
    )
    show_text(f"{candidate.case}-verdict", explain(verdict), "Every gate, as observed and as required")
    slices = [
        {"slice": f"{column}={value}", **_rounded(metrics)}
        for column, values in verdict.metrics["by_slice"].items()
        for value, metrics in values.items()
    ]
    months = [{"slice": f"month={month}", **_rounded(m)} for month, m in verdict.metrics["by_month"].items()]
    whole = {"slice": "all", **_rounded(verdict.metrics["overall"])}
    show_table(f"{candidate.case}-metrics", [whole, *months, *slices], "On the hold-out")
    return verdict


def _figures(verdict: Verdict) -> str:
    overall = verdict.metrics["overall"]
    shown = [name for name in ("auc", "brier", "rmse", "r2") if name in overall]
    return ", ".join(f"{name} {overall[name]:.3f}" for name in shown)


def _rounded(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in metrics.items()}
