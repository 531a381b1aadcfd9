"""The weighted mean of the best models, chosen greedily on their predictions of the folds.

Source: Caruana, Niculescu-Mizil, Crew and Ksikes, Ensemble selection from libraries of models, ICML (2004).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tasks.search.problem import Complete, Configuration
from tasks.search.tabular.losses import example_losses

if TYPE_CHECKING:
    import numpy as np

MOST_PICKS = 6  # weights are sixths at the finest
LEAST_GAIN = 1e-4  # of the loss, that a further pick must bring


def combine_best(
    trials: Sequence[Complete], outcomes: Sequence[np.ndarray], metric: str, seconds: float
) -> Configuration | None:
    """An ensemble of at most six picks with repetition whose rows take at most so many seconds; None of one model."""
    import numpy as np

    alone = [trial for trial in trials if not trial.configuration.get("ensemble") and _is_whole(trial, outcomes)]
    if len(alone) < 2:
        return None

    def loss(picks: Sequence[int]) -> float:
        parts = []
        for fold, outcome in enumerate(outcomes):
            members = [found for pick in picks if (found := alone[pick].predictions[fold]) is not None]
            mean = np.mean(members, axis=0)
            parts.append(example_losses(metric, outcome, mean))
        return float(np.concatenate(parts).mean())

    picks = [min(range(len(alone)), key=lambda k: alone[k].loss)]
    best = loss(picks)
    while len(picks) < MOST_PICKS:
        fitting = [k for k in range(len(alone)) if sum(alone[j].call_seconds for j in {*picks, k}) <= seconds]
        losses = {k: loss([*picks, k]) for k in fitting}
        chosen = min(losses, key=lambda k: losses[k], default=None)
        if chosen is None or best - losses[chosen] < LEAST_GAIN:
            break
        picks.append(chosen)
        best = losses[chosen]
    weights = Counter(picks)
    if len(weights) < 2:
        return None
    first, *others = [_member(alone[pick].configuration, count) for pick, count in weights.most_common()]
    return {**first, "ensemble": others}


def _is_whole(trial: Complete, outcomes: Sequence[np.ndarray]) -> bool:
    """Whether it has a prediction of each row of each fold, in the form of the others."""
    return len(trial.predictions) == len(outcomes) and all(
        prediction is not None and len(prediction) == len(outcome)
        for prediction, outcome in zip(trial.predictions, outcomes, strict=True)
    )


def _member(configuration: Configuration, count: int) -> dict[str, Any]:
    return {**configuration, **({"weight": float(count)} if count > 1 else {})}
