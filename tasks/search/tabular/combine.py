"""The weighted mean of the best models, chosen greedily on their predictions of the folds.

Source: Caruana, Niculescu-Mizil, Crew and Ksikes, Ensemble selection from libraries of models, ICML (2004).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tasks.search.problem import Combination, Complete, Configuration, Scores
from tasks.search.tabular.losses import example_losses
from tasks.train.metrics import compute_metrics

if TYPE_CHECKING:
    import numpy as np

Task: TypeAlias = Literal["classification", "regression"]
MOST_PICKS = 12  # weights are twelfths at the finest
LEAST_GAIN = 1e-5  # of the loss, that a further pick must bring
MOST_ROWS = 20_000  # by which members are chosen


def combine_best(
    trials: Sequence[Complete], outcomes: Sequence[np.ndarray], metric: str, *, task: Task, seconds: float
) -> Combination | None:
    """An ensemble of at most twelve picks with repetition, a row of which takes at most so many seconds.

    Its scores are those of its members' mean. None where one model is as good.
    """
    alone = [trial for trial in trials if not trial.configuration.get("ensemble") and _is_whole(trial, outcomes)]
    if len(alone) < 2:
        return None
    picks = _choose(alone, outcomes, metric, seconds)
    weights = Counter(picks)
    if len(weights) < 2:
        return None
    taken = sum(alone[pick].call_seconds for pick in weights)
    scores = []
    for fold, outcome in enumerate(outcomes):
        mean = _mean(alone, picks, fold)
        losses, metrics = example_losses(metric, outcome, mean), compute_metrics(outcome, mean, task)
        scores.append(Scores(losses, call_seconds=taken, metrics=metrics, predictions=mean))
    first, *others = [_member(alone[pick].configuration, count) for pick, count in weights.most_common()]
    return Combination({**first, "ensemble": others}, scores)


def _choose(alone: Sequence[Complete], outcomes: Sequence[np.ndarray], metric: str, seconds: float) -> list[int]:
    """The best model, and then as long as it brings something the one that improves the mean of all picks most."""
    import numpy as np

    step = max(1, sum(map(len, outcomes)) // MOST_ROWS)
    few = [outcome[::step] for outcome in outcomes]
    known = [[np.asarray(trial.predictions[fold])[::step] for fold in range(len(few))] for trial in alone]

    def loss(sums: Sequence[np.ndarray], count: int) -> float:
        parts = [example_losses(metric, outcome, each / count) for outcome, each in zip(few, sums, strict=True)]
        return float(np.concatenate(parts).mean())

    first = min(range(len(alone)), key=lambda k: alone[k].loss)
    picks, sums = [first], known[first]
    best = loss(sums, 1)
    while len(picks) < MOST_PICKS:
        fitting = [k for k in range(len(alone)) if sum(alone[j].call_seconds for j in {*picks, k}) <= seconds]
        added = {k: [a + b for a, b in zip(sums, known[k], strict=True)] for k in fitting}
        losses = {k: loss(each, len(picks) + 1) for k, each in added.items()}
        chosen = min(losses, key=lambda k: losses[k], default=None)
        if chosen is None or best - losses[chosen] < LEAST_GAIN:
            break
        picks.append(chosen)
        sums, best = added[chosen], losses[chosen]
    return picks


def _mean(alone: Sequence[Complete], picks: Sequence[int], fold: int) -> np.ndarray:
    import numpy as np

    return np.asarray(np.mean([np.asarray(alone[pick].predictions[fold]) for pick in picks], axis=0))


def _is_whole(trial: Complete, outcomes: Sequence[np.ndarray]) -> bool:
    """Whether it has a prediction of each row of each fold, in the form of the others."""
    return len(trial.predictions) == len(outcomes) and all(
        prediction is not None and len(prediction) == len(outcome)
        for prediction, outcome in zip(trial.predictions, outcomes, strict=True)
    )


def _member(configuration: Configuration, count: int) -> dict[str, Any]:
    return {**configuration, **({"weight": float(count)} if count > 1 else {})}
