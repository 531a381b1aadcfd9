"""Metrics of answers that need no right ones: form, hallucinated values, abstentions, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from tasks.evaluate.language.inference import message_in
from tasks.language.answer_scoring import Score, Scorer, metric_fractions
from tasks.release.config import NANO, Price
from tasks.statistics.metric_catalog import worse_by
from tasks.statistics.permutation import mean_p_value, ratio_p_value

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Ratios: TypeAlias = "Mapping[str, np.ndarray]"  # by metric, of shape (answers, 2): numerator and denominator
FORM_METRICS = (
    *("json_validity", "schema_validity", "hallucination_rate"),
    *("abstention_share", "empty_rate", "repetition_rate"),
)
COST_METRICS = ("answer_tokens", "cost_per_1k_answers")


def reference_free_ratios(rows: pd.DataFrame, scorer: Scorer, price: Price) -> Ratios:
    """The ratios of each metric; an answer is scored against itself, which only these metrics allow."""
    import numpy as np

    texts = zip(rows["prediction"], rows["messages"], strict=True)
    scores = [scorer.score(text, text, message_in(messages)) for text, messages in texts]
    usage = zip(rows["tokens_in"], rows["tokens_out"], rows["seconds"], strict=True)
    costs = [1000 * price.of(int(read), 0, int(written), seconds) / NANO for read, written, seconds in usage]
    ratios = {name: _ratio(scores, name) for name in FORM_METRICS}
    for name, values in zip(COST_METRICS, (rows["tokens_out"].to_numpy(float), np.array(costs, float)), strict=True):
        ratios[name] = np.stack([values, np.ones(len(values))], axis=1)
    return ratios


def sum_ratios(ratios: Ratios) -> dict[str, float]:
    """Each metric over all answers; a metric whose denominators sum to 0 is left out."""
    sums = {name: values.sum(axis=0) for name, values in ratios.items()}
    return {
        name: round(float(numerator / denominator), 6) for name, (numerator, denominator) in sums.items() if denominator
    }


def reference_free_p_values(then: Ratios, now: Ratios) -> dict[str, float | None]:
    """The p-value of a worse value, by metric."""
    return {
        name: mean_p_value(then[name][:, 0], now[name][:, 0])
        if name in COST_METRICS
        else ratio_p_value(then[name], now[name], worse_by(name, 1.0, 0.0))
        for name in now
        if now[name][:, 1].any() and then[name][:, 1].any()  # prose has no metrics of JSON
    }


def metric_p_value(then: Sequence[Score], now: Sequence[Score], metric: str) -> float | None:
    """The p-value of a worse metric of answers with right ones; None for a metric that is no ratio of sums."""
    if not then or not now or metric not in metric_fractions(then[0]):
        return None
    return ratio_p_value(_ratio(then, metric), _ratio(now, metric), worse_by(metric, 1.0, 0.0))


def _ratio(scores: Sequence[Score], name: str) -> np.ndarray:
    import numpy as np

    return np.array([metric_fractions(score)[name] for score in scores], float)
