"""Every metric and every loss that a case can name: task, direction and where it is shown. No other file lists them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

TaskKind: TypeAlias = Literal["classification", "regression", "answers"]


@dataclass(frozen=True)
class Metric:
    name: str
    task: TaskKind
    higher_is_better: bool
    headline: bool = False  # shown in the one line that sums a verdict up


METRICS = (
    Metric("auc", "classification", higher_is_better=True, headline=True),
    Metric("average_precision", "classification", higher_is_better=True),
    Metric("brier", "classification", higher_is_better=False, headline=True),
    Metric("log_loss", "classification", higher_is_better=False),
    Metric("calibration_error", "classification", higher_is_better=False),
    Metric("accuracy", "classification", higher_is_better=True),
    Metric("macro_f1", "classification", higher_is_better=True),
    Metric("mae", "regression", higher_is_better=False),
    Metric("rmse", "regression", higher_is_better=False, headline=True),
    Metric("r2", "regression", higher_is_better=True, headline=True),
    Metric("json_validity", "answers", higher_is_better=True),
    Metric("schema_validity", "answers", higher_is_better=True, headline=True),
    Metric("exact_match", "answers", higher_is_better=True, headline=True),
    Metric("field_precision", "answers", higher_is_better=True),
    Metric("field_recall", "answers", higher_is_better=True),
    Metric("field_f1", "answers", higher_is_better=True),
    Metric("hallucination_rate", "answers", higher_is_better=False, headline=True),
    Metric("abstention_recall", "answers", higher_is_better=True),
    Metric("wrong_abstention_rate", "answers", higher_is_better=False),
    Metric("refusal_rate", "answers", higher_is_better=True),
    Metric("over_refusal_rate", "answers", higher_is_better=False),
    Metric("repetition_rate", "answers", higher_is_better=False),
    Metric("empty_rate", "answers", higher_is_better=False),
    Metric("abstention_share", "answers", higher_is_better=False),
    Metric("token_f1", "answers", higher_is_better=True, headline=True),
    Metric("rouge_l", "answers", higher_is_better=True),
    Metric("semantic_similarity", "answers", higher_is_better=True),
    Metric("required_facts_recall", "answers", higher_is_better=True, headline=True),
    Metric("forbidden_rate", "answers", higher_is_better=False),
    Metric("recall_at_5", "answers", higher_is_better=True, headline=True),
    Metric("mrr", "answers", higher_is_better=True),
    Metric("ndcg_at_10", "answers", higher_is_better=True),
    Metric("citation_precision", "answers", higher_is_better=True),
    Metric("groundedness", "answers", higher_is_better=True),
    Metric("replaced_rate", "answers", higher_is_better=False),
    Metric("answer_words", "answers", higher_is_better=False),
    Metric("perplexity", "answers", higher_is_better=False),
    Metric("latency_p50_ms", "answers", higher_is_better=False),
    Metric("cost_per_1k_answers", "answers", higher_is_better=False),
    Metric("judge_score", "answers", higher_is_better=True),
)
LOSSES: dict[TaskKind, tuple[str, ...]] = {
    "classification": ("brier", "log_loss"),
    "regression": ("absolute_error", "squared_error"),
    "answers": ("inexact", "token_distance", "semantic_distance", "missing_facts", "degenerate"),
}
CUSTOM = "scorers."  # before the name of a case's own scorer, 0 to 1, where a metric or a loss is named


def metrics_of(task: str) -> tuple[str, ...]:
    """The metrics of a task: classification, regression or answers."""
    return tuple(metric.name for metric in METRICS if metric.task == task)


HIGHER_IS_BETTER = frozenset(metric.name for metric in METRICS if metric.higher_is_better)
HEADLINES = tuple(metric.name for metric in METRICS if metric.headline)

if TYPE_CHECKING:  # mypy accepts no computed Literal; pydantic does, and its errors list the allowed names
    MetricName: TypeAlias = str
    AnswerMetric: TypeAlias = str
    LossName: TypeAlias = str
else:
    MetricName = Literal[tuple(metric.name for metric in METRICS)]
    AnswerMetric = Literal[metrics_of("answers")]
    LossName = Literal[tuple(name for names in LOSSES.values() for name in names)]


def worse_by(metric: str, value: float, than: float) -> float:
    """How much worse a value is, in the metric's units; negative when it is better.

    A name outside the catalog, such as a cost, counts as lower is better.
    """
    return than - value if metric in HIGHER_IS_BETTER or metric.startswith(CUSTOM) else value - than
