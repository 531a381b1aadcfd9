"""What answers tell without the right ones: form, values that no message contains, abstentions, what they cost."""

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

Ratios: TypeAlias = "Mapping[str, np.ndarray]"  # by name: for each answer, what it adds above and below the line
FORM = ("json_validity", "schema_validity", "hallucination_rate", "repetition_rate")
SPENT = ("answer_tokens", "cost_per_1k_answers")


def reference_free_ratios(rows: pd.DataFrame, scorer: Scorer, price: Price) -> Ratios:
    """Each proxy of each answer; an answer is held against itself, so only what needs no right one counts."""
    import numpy as np

    told = zip(rows["prediction"], rows["messages"], strict=True)
    scores = [scorer.score(text, text, message_in(messages)) for text, messages in told]
    used = zip(rows["tokens_in"], rows["tokens_out"], rows["seconds"], strict=True)
    spent = [1000 * price.of(int(read), 0, int(written), seconds) / NANO for read, written, seconds in used]
    found = {name: _ratio(scores, name) for name in FORM}
    found["abstention_share"] = np.array([(score.abstained, 1) for score in scores], float)
    for name, values in zip(SPENT, (rows["tokens_out"].to_numpy(float), np.array(spent, float)), strict=True):
        found[name] = np.stack([values, np.ones(len(values))], axis=1)
    return found


def sum_ratios(proxies: Ratios) -> dict[str, float]:
    """The proxies of all answers together; one that none of them has is left out."""
    sums = {name: values.sum(axis=0) for name, values in proxies.items()}
    return {name: round(float(above / below), 6) for name, (above, below) in sums.items() if below}


def reference_free_p_values(then: Ratios, now: Ratios) -> dict[str, float | None]:
    """The p-value of each proxy having become worse."""
    return {
        name: mean_p_value(then[name][:, 0], now[name][:, 0])
        if name in SPENT
        else ratio_p_value(then[name], now[name], worse_by(name, 1.0, 0.0))
        for name in now
    }


def metric_p_value(then: Sequence[Score], now: Sequence[Score], metric: str) -> float | None:
    """The p-value of a metric of answers beside the right ones having become worse; None for one not made of them."""
    if not then or not now or metric not in metric_fractions(then[0]):
        return None
    return ratio_p_value(_ratio(then, metric), _ratio(now, metric), worse_by(metric, 1.0, 0.0))


def _ratio(scores: Sequence[Score], name: str) -> np.ndarray:
    import numpy as np

    return np.array([metric_fractions(score)[name] for score in scores], float)
