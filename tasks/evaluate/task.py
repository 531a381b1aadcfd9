"""Prefect tasks of the evaluate room."""

from __future__ import annotations

from pathlib import Path

from tasks.core.mlflow import Tracking
from tasks.core.prefect import show_table, show_text, stage
from tasks.data.config import ChatSpec
from tasks.data.results import BaseModelFiles
from tasks.evaluate.config import Evaluate, LanguageEvaluation
from tasks.evaluate.report import explain
from tasks.evaluate.results import Verdict
from tasks.statistics.metric_catalog import HEADLINES
from tasks.train.config import Serving, Target, Train
from tasks.train.results import Candidate


@stage("judge the candidate", lambda verdict: f"{verdict.decision}: {_figures(verdict)}")
def evaluate_candidate(
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
    from tasks.evaluate.tabular.gates import evaluate_gates

    verdict = evaluate_gates(
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
    _show(candidate.case, verdict)
    return verdict


@stage("judge the answers", lambda verdict: f"{verdict.decision}: {_figures(verdict)}")
def evaluate_language_candidate(
    candidate: Candidate,
    base: BaseModelFiles,
    talk: ChatSpec,
    serving: Serving,
    config: LanguageEvaluation,
    threads: int,
    state: Path,
    tracking: Tracking,
    champion: Path | None,
    champion_digest: str | None,
) -> Verdict:
    """Hold the candidate's answers on the frozen evaluation pairs against every gate, the base and the champion."""
    from tasks.evaluate.language.gates import evaluate_language_gates

    verdict = evaluate_language_gates(
        candidate, base, talk, serving, config, threads, state, tracking, champion, champion_digest
    )
    _show(candidate.case, verdict)
    return verdict


def _show(case: str, verdict: Verdict) -> None:
    """Put the verdict and its metrics on the run's page."""
    show_text(f"{case}-verdict", explain(verdict), "Every gate, as observed and as required")
    slices = [
        {"slice": f"{column}={value}", **_rounded(metrics)}
        for column, values in verdict.metrics["by_slice"].items()
        for value, metrics in values.items()
    ]
    months = [{"slice": f"month={month}", **_rounded(m)} for month, m in verdict.metrics["by_month"].items()]
    others = [
        {"slice": name, **_rounded(metrics)}
        for name, metrics in {
            **verdict.metrics.get("baselines", {}),
            "constrained": verdict.metrics.get("constrained"),
        }.items()
        if metrics
    ]
    whole = {"slice": "all", **_rounded(verdict.metrics["overall"])}
    show_table(f"{case}-metrics", [whole, *others, *months, *slices], "On the hold-out")


def _figures(verdict: Verdict) -> str:
    overall = verdict.metrics["overall"]
    return ", ".join(f"{name} {overall[name]:.3f}" for name in HEADLINES if name in overall)


def _rounded(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in metrics.items()}
