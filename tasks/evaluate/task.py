"""Prefect tasks of evaluation."""

from __future__ import annotations

from tasks.core.places import Places
from tasks.core.prefect import show_table, show_text, stage
from tasks.core.progress import progress_figures
from tasks.evaluate.config import Evaluate, LanguageEvaluation
from tasks.evaluate.report import explain
from tasks.evaluate.results import EvaluationContext, Verdict
from tasks.statistics.metric_catalog import HEADLINES
from tasks.train.config import Target, Train
from tasks.train.results import Candidate, LanguageSpec


@stage("judge the candidate", lambda verdict: f"{verdict.decision}: {_headline(verdict)}")
def evaluate_candidate(
    candidate: Candidate, target: Target, train: Train, config: Evaluate, context: EvaluationContext
) -> Verdict:
    """Check the candidate's predictions on its hold-out against every gate and the champion."""
    from tasks.evaluate.tabular.gates import evaluate_gates

    verdict = evaluate_gates(candidate, target, train, config=config, context=context)
    _show(candidate.case, verdict)
    return verdict


@stage("judge the answers", lambda verdict: f"{verdict.decision}: {_headline(verdict)}")
def evaluate_language_candidate(
    candidate: Candidate,
    spec: LanguageSpec,
    config: LanguageEvaluation,
    threads: int,
    context: EvaluationContext,
) -> Verdict:
    """Check the candidate's answers on the frozen evaluation pairs against every gate, the base and the champion."""
    from tasks.evaluate.language.first_questions import TITLE
    from tasks.evaluate.language.gates import evaluate_language_gates

    def show_first(figure: str) -> None:
        show_text(f"{candidate.case}-first-verdict", figure, "On the first questions, beside the champion")

    with progress_figures(TITLE, show_first):
        verdict = evaluate_language_gates(candidate, spec, config, threads=threads, context=context)
    _show(candidate.case, verdict)
    return verdict


@stage("show the answers in MLflow", str)
def show_answers_in_mlflow(candidate: Candidate, verdict: Verdict, places: Places) -> str:
    """Log the answers of a verdict as MLflow's own evaluation; nothing depends on it."""
    from tasks.evaluate.language.genai_report import show_answers

    return show_answers(candidate.run_id, verdict.scores, places.tracking)


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


def _headline(verdict: Verdict) -> str:
    overall = verdict.metrics["overall"]
    return ", ".join(f"{name} {overall[name]:.3f}" for name in HEADLINES if name in overall)


def _rounded(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in metrics.items()}
