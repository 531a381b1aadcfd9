"""The part of a case that states when a candidate is good enough."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tasks.core.config import Section, Text
from tasks.evaluate.custom_scorer import ScorerCode
from tasks.statistics.metric_catalog import CUSTOM, LOSSES, LossName, MetricName, metrics_of

FairnessMetric = Literal[
    "selection_rate", "true_positive_rate", "false_positive_rate", "equalized_odds", "calibration_gap", "error"
]
WAIVED = "Gates that may fail, by the name in the verdict, each with reason, person and last day."
OF_REGRESSIONS = ("calibration_gap", "error")  # the only ones without classes


class Bound(Section):
    metric: MetricName = Field(description="The metric.")
    at_least: float | None = Field(None, description="Lowest value that passes.")
    at_most: float | None = Field(None, description="Highest value that passes.")

    @model_validator(mode="after")
    def _require_one_bound(self) -> Bound:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give at_least or at_most, one of them")
        return self


class SliceGate(Section):
    """Maximum difference between a slice and the whole."""

    metric: MetricName = Field(description="The metric.")
    at_most_worse: float = Field(gt=0, description="How much worse than the whole a slice may be.")
    min_rows: int = Field(200, ge=10, description="Smaller slices are shown, but not checked.")


class SliceMargin(Section):
    """Comparison with the champion on every slice of evaluate.slices."""

    margin: float = Field(ge=0, description="How much worse, in mean loss, a slice may be than the champion is on it.")
    min_rows: int = Field(200, ge=30, description="Smaller slices are named, but not compared.")


class ChampionGate(Section):
    """Comparison with the champion by a paired bootstrap on per-example losses."""

    loss: LossName = Field(description="Loss of an example.")
    margin: float = Field(0.0, ge=0, description="How much worse, in mean loss, still counts as not worse.")
    min_effect: float | None = Field(
        None, gt=0, description="How much better, in mean loss, must be shown. Empty: not worse is enough."
    )
    slices: SliceMargin | None = Field(None, description="Comparison on every slice. Empty: none.")
    clusters: str = Field(
        "",
        description="What makes examples dependent, so that they are resampled together. Of a table a column, or day: "
        "that of the event; of answers wording (the default), or document. Empty: rows are independent.",
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Confidence of the bootstrap interval.")
    resamples: int = Field(1000, ge=100, le=100_000, description="Bootstrap resamples.")
    min_rows: int = Field(500, ge=30, description="Fewer examples are insufficient evidence.")

    @model_validator(mode="after")
    def _allow_one_direction(self) -> ChampionGate:
        if self.min_effect is not None and self.margin:
            raise ValueError("give margin or min_effect, one of them: a candidate may be worse, or must be better")
        return self

    @property
    def limit(self) -> float:
        """The largest difference of the mean losses that passes, negative where a minimum effect must be shown."""
        return self.margin if self.min_effect is None else -self.min_effect


class FairnessGate(Section):
    """Largest difference between groups that passes; it must be shown, by its bound."""

    metric: FairnessMetric = Field(
        description="selection_rate: share with the positive decision; true_positive_rate and false_positive_rate: of "
        "those with and without the outcome; equalized_odds: the larger of both; calibration_gap: mean prediction "
        "minus mean outcome; error: share of wrong decisions, of a regression the mean absolute error."
    )
    at_most: float = Field(gt=0, description="Largest difference between two groups; of two classes 0 to 1.")


class Fairness(Section):
    """Comparison of groups of people. A group that is too small is named, and never counts as fair."""

    columns: tuple[str, ...] = Field(min_length=1, max_length=6, description="Sensitive columns, of evaluate.slices.")
    crossed: int = Field(2, ge=1, le=3, description="How many of the columns are crossed: 2 makes sex and marriage.")
    min_rows: int = Field(100, ge=30, description="Smaller groups are named as unknown.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Confidence of the bounds.")
    resamples: int = Field(1000, ge=200, le=10_000, description="Bootstrap resamples.")
    gates: tuple[FairnessGate, ...] = Field((), description="Differences that decide. Empty: they are only shown.")


class Waiver(Section):
    """A person's reason why a failed gate passes all the same, until a day."""

    reason: Text = Field(min_length=3, description="Why.")
    by: str = Field(min_length=2, max_length=100, description="Who answers for it.")
    until: date = Field(description="Its last day, in UTC. Afterwards it waives nothing.")

    @model_validator(mode="before")
    @classmethod
    def _explain_the_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(
                f'a waiver needs a name and a last day: {{reason: "{value}", by: NAME, until: YYYY-MM-DD}}'
            )
        return value

    def __str__(self) -> str:
        return f"{self.reason} ({self.by}, until {self.until:%Y-%m-%d})"


class Evaluate(Section):
    """Criteria that a candidate must meet."""

    slices: tuple[str, ...] = Field((), description="Columns whose values make slices.")
    bounds: tuple[Bound, ...] = Field(min_length=1, description="Metrics that must be reached.")
    slice_gate: SliceGate | None = None
    champion_gate: ChampionGate
    fairness: Fairness | None = Field(None, description="How groups of people are compared. Empty: not at all.")
    waive: dict[str, Waiver] = Field({}, description=f"{WAIVED} Or columns that may tell the target.")
    selftest: bool = Field(
        False,
        description="Judge known-bad candidates before each release, and seal the result in it. One that gets through "
        "stops the release.",
    )
    ms_per_row: float | None = Field(None, gt=0, description="Longest time to score one row, in milliseconds.")


class LlmJudge(Section):
    """A language model at any OpenAI-compatible endpoint that judges a sample of the answers."""

    url: str = Field(
        pattern=r"^(https?://\S+|\$[A-Z][A-Z0-9_]*)$",
        description="Address with /v1, or $NAME of the environment variable that holds it.",
    )
    model: str = Field(min_length=1, description="The model's name at the endpoint.")
    key: str = Field(
        "", pattern=r"^([A-Z][A-Z0-9_]*)?$", description="Environment variable with the key, if one is needed."
    )
    rubric: Text = Field(
        "Judge the answer by how well it does what the message asks, compared with the right answer.",
        description="Instructions for the judge; message, right answer and given answer follow.",
    )
    scale: Literal["1-5", "pass"] = Field("1-5", description="1-5: marks, 5 is best; pass: 1 where it passes, else 0.")
    examples: int = Field(50, ge=1, le=1000, description="Answers that are judged, evenly over intents and templates.")
    at_once: int = Field(4, ge=1, le=64, description="Requests at the same time.")
    seconds: float = Field(60, gt=0, le=600, description="Timeout of one request.")


class Counterfactuals(Section):
    """Messages with another name, place or spelling: the answer should not change but for that."""

    groups: dict[str, tuple[str, ...]] = Field(
        min_length=1, description="By name of the group, words that may stand for each other, such as first names."
    )
    at_most: float = Field(0.1, gt=0, lt=1, description="Largest share of answers that may change; it must be shown.")
    examples: int = Field(200, ge=10, le=5000, description="Changed messages at most.")

    @model_validator(mode="after")
    def _require_two(self) -> Counterfactuals:
        if few := [name for name, terms in self.groups.items() if len({*terms}) < 2]:
            raise ValueError(f"give two different terms or more: {', '.join(few)}")
        return self


ANSWER_CLUSTERS = ("wording", "document")
DAY = "day"  # clusters of a table by the day of the event
ANSWER_METRIC = f"The metric: {', '.join(metrics_of('answers'))}; or scorers.NAME, one of the case's own."


class AnswerBound(Bound):
    metric: str = Field(description=ANSWER_METRIC)


class AnswerSliceGate(SliceGate):
    """Maximum difference between a slice and the whole."""

    metric: str = Field(description=ANSWER_METRIC)


class AnswerGate(ChampionGate):
    """Comparison with the champion by a paired bootstrap on per-example losses."""

    loss: str = Field(
        description="Loss of an answer, 0 to 1. inexact: 1 unless it is exactly right; token_distance: 1 minus "
        "token_f1; semantic_distance: 1 minus semantic_similarity; missing_facts: share of required facts that it "
        "lacks, and 1 if it states a forbidden one; degenerate: 1 if it is empty, repeats itself, or states what no "
        "passage does; scorers.NAME: 1 minus the score of one of the case's own.",
    )

    @model_validator(mode="after")
    def _know_the_clusters(self) -> AnswerGate:
        if self.clusters not in ("", *ANSWER_CLUSTERS):
            raise ValueError(f"{self.clusters} clusters no answers; allowed: {', '.join(ANSWER_CLUSTERS)}")
        return self


class LanguageEvaluation(Section):
    """Criteria that a language candidate must meet."""

    slices: tuple[str, ...] = Field(("intent",), description="Columns of the pairs whose values make slices.")
    scorers: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")], ScorerCode] = Field(
        {},
        description="Own scorers by name, FILE.py:FUNCTION in the case folder. The function takes message, answer, "
        "reference and required facts, and returns a number from 0 to 1, 1 is best. Metrics and losses name it as "
        "scorers.NAME.",
    )
    bounds: tuple[AnswerBound, ...] = Field(min_length=1, description="Metrics that must be reached.")
    slice_gate: AnswerSliceGate | None = None
    champion_gate: AnswerGate
    above_few_shot: float | None = Field(
        None, description="How far exact match must lie above that of the untuned base with examples in its prompt."
    )
    quantized_loss: float = Field(0.01, ge=0, le=1, description="Exact match that quantization may cost.")
    parity: float = Field(
        0.25, gt=0, description="Largest difference of a token's log-probability between training and serving stack."
    )
    judge: LlmJudge | None = Field(None, description="A judge for the metric judge_score; empty: none.")
    cpu_price_per_hour: float = Field(0.10, ge=0, description="Price of the machine, for the cost of answers.")
    counterfactuals: Counterfactuals | None = Field(
        None, description="How much answers may depend on who or what a message names. Empty: that is not measured."
    )
    waive: dict[str, Waiver] = Field({}, description=WAIVED)
    selftest: bool = Field(
        False,
        description="Judge known-bad candidates before each release, and seal the result in it. One that gets through "
        "stops the release.",
    )
    compared: int = Field(
        60, ge=0, description="Questions on documents for each model beside the served way of answering; 0: none."
    )

    @model_validator(mode="after")
    def _names_exist(self) -> LanguageEvaluation:
        own = [f"{CUSTOM}{name}" for name in self.scorers]
        named = [("metric", bound.metric) for bound in self.bounds]
        named += [("metric", self.slice_gate.metric)] if self.slice_gate else []
        named.append(("loss", self.champion_gate.loss))
        allowed = {"metric": [*metrics_of("answers"), *own], "loss": [*LOSSES["answers"], *own]}
        if unknown := [_unknown(what, name, allowed[what]) for what, name in named if name not in allowed[what]]:
            raise ValueError("; ".join(unknown))
        return self


def _unknown(what: str, name: str, allowed: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, allowed, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{name} is no {what} of answers; {hint}allowed: {', '.join(allowed)}"
