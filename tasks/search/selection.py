"""Comparisons of trials on the same examples: who is beaten, the front, the choice, and how lucky it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tasks.search.results import Optimism, TrialRecord
from tasks.statistics.bootstrap import PairedDifference, paired_bootstrap

if TYPE_CHECKING:
    import numpy as np

BEATEN_AT = 0.9  # confidence of being worse with which a trial stops
RESAMPLES = 200  # of a comparison within the race
CHOICES = 200  # resampled choices
REALITY_RESAMPLES, MOST_GROUPS = 1000, 2000  # and so many groups of examples at most
SHOWN_AT = 0.05  # probability of such a difference by chance
FEWEST_EXPLAINED = 8  # trials
MOST_CHOSEN_FROM = 50  # of the best: the others are never chosen


def is_beaten(losses: np.ndarray, best: np.ndarray, clusters: Sequence[str] | None) -> bool:
    """Whether a trial is shown to be worse than the best so far, on the examples that both were measured on."""
    difference = paired_bootstrap(losses, best, confidence=BEATEN_AT, resamples=RESAMPLES, clusters=clusters)
    return difference.is_worse(0.0)


def compare(losses: np.ndarray, start: np.ndarray, clusters: Sequence[str] | None) -> PairedDifference:
    """A trial against the case as it is."""
    return paired_bootstrap(losses, start, clusters=clusters)


def is_shown_better(
    losses: Mapping[int, np.ndarray], chosen: int, tried: int, clusters: Sequence[str] | None, *, seed: int = 0
) -> bool:
    """Whether the chosen trial beats trial 0, the case as it is, by more than the best of so many would by chance.

    `losses` are those of complete trials, of `tried` in all: those that the race ended count as if they were like them.
    Source: White, A Reality Check for Data Snooping, Econometrica 68 (2000), with studentized differences.
    """
    import numpy as np

    numbers = [number for number in losses if number != 0]
    if chosen not in numbers:
        return False
    random = np.random.default_rng(seed)
    rows = len(losses[0])
    names = np.unique(clusters, return_inverse=True)[1] if clusters else np.arange(rows)
    count = min(int(names.max()) + 1, MOST_GROUPS)
    groups = random.permutation(int(names.max()) + 1)[names] % count  # of examples that are resampled together
    differences = np.stack([np.bincount(groups, losses[k] - losses[0], count) for k in numbers], axis=1)
    drawn = random.multinomial(count, np.full(count, 1 / count), REALITY_RESAMPLES) @ differences / rows
    means = differences.sum(axis=0) / rows
    spread = np.maximum(drawn.std(axis=0), 1e-12)
    by_chance = ((drawn - means) / spread).min(axis=1)  # of the trial that looks best in a resample
    at = numbers.index(chosen)
    probability = np.mean(by_chance <= means[at] / spread[at])
    return bool(probability * max(1.0, tried / len(numbers)) < SHOWN_AT)


def front(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The complete trials that no other beats in loss, seconds of a call and cost of a call together; best first."""
    complete = [trial for trial in trials if trial.state == "complete" and trial.loss is not None]

    def aims(trial: TrialRecord) -> tuple[float, float, float]:
        return (trial.loss or 0.0, trial.call_seconds, trial.call_cost)

    def beats(one: TrialRecord, other: TrialRecord) -> bool:
        a, b = aims(one), aims(other)
        return all(x <= y for x, y in zip(a, b, strict=True)) and (a != b or one.number < other.number)

    unbeaten = [trial for trial in complete if not any(beats(other, trial) for other in complete if other is not trial)]
    return sorted(unbeaten, key=lambda trial: trial.loss or 0.0)


def knee(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """Of a front, the trial farthest from the line between its ends: beyond it, quality costs most. None of two."""
    import math

    if len(trials) < 3:
        return None
    loss = [trial.loss or 0.0 for trial in trials]
    speed = [math.log(max(trial.call_seconds, 1e-9)) for trial in trials]

    def scaled(values: list[float]) -> list[float]:
        least, most = min(values), max(values)
        return [(value - least) / ((most - least) or 1.0) for value in values]

    x, y = scaled(loss), scaled(speed)
    distance = [1 - a - b for a, b in zip(x, y, strict=True)]  # from the line between (0, 1) and (1, 0)
    best = max(range(len(trials)), key=lambda k: distance[k])
    return trials[best] if 0 < best < len(trials) - 1 and distance[best] > 0 else None


def choose(trials: Sequence[TrialRecord], prefer: str, within: float) -> TrialRecord:
    """The complete trial of the lowest loss; or of those within so much of it, the one that answers fastest."""
    complete = [trial for trial in trials if trial.state == "complete" and trial.loss is not None]
    best = min(complete, key=lambda trial: (trial.loss, trial.number))
    if prefer == "quality":
        return best
    near = [trial for trial in complete if (trial.loss or 0.0) <= (best.loss or 0.0) + within]
    return min(near, key=lambda trial: (trial.call_cost, trial.call_seconds, trial.number))


def optimism(losses: Mapping[int, np.ndarray], seed: int = 0) -> Optimism | None:
    """What the choice of the lowest mean loss promises too much: of resampled examples the best trial is chosen, and
    measured on the examples that were not drawn. None of fewer than two trials.

    Source: Tsamardinos, Greasidou and Borboudakis, Bootstrapping the out-of-sample predictions for efficient and
    accurate cross-validation, Machine Learning 107 (2018).
    """
    import numpy as np

    if len(losses) < 2:
        return None
    means = {number: float(each.mean()) for number, each in losses.items()}
    numbers = sorted(means, key=lambda number: means[number])[:MOST_CHOSEN_FROM]
    table = np.stack([losses[number] for number in numbers])
    random = np.random.default_rng(seed)
    rows = table.shape[1]
    outside = []
    for _ in range(CHOICES):
        counts = np.bincount(random.integers(0, rows, rows), minlength=rows)
        left_out = counts == 0
        if left_out.any():
            chosen = int((table @ counts).argmin())
            outside.append(float(table[chosen, left_out].mean()))
    if not outside:
        return None
    low, high = np.quantile(outside, [0.05, 0.95])
    return Optimism(loss=means[numbers[0]], corrected=float(np.mean(outside)), low=float(low), high=float(high))


def importance(trials: Sequence[TrialRecord]) -> dict[str, float]:
    """How much of the differences between losses each choice explains, over all trials that were measured to the end
    or beaten; 0 to 1. A number counts by its rank, in quarters; a choice that applies to one family alone counts there.
    """
    import numpy as np

    measured = [trial for trial in trials if trial.loss is not None and trial.parameters]
    if len(measured) < FEWEST_EXPLAINED:
        return {}
    # a beaten trial is compared with the best on its own examples: those of a hard fold would look bad
    values = np.array([(trial.loss or 0.0) - (trial.best or trial.loss or 0.0) for trial in measured])
    ranks = values.argsort().argsort() / len(values)  # one catastrophe would explain everything
    total = float(((ranks - ranks.mean()) ** 2).sum())
    shares: dict[str, float] = {}
    for name in sorted({name for trial in measured for name in trial.parameters}):
        groups = _groups([trial.parameters.get(name) for trial in measured])
        between = sum(len(rows) * (ranks[rows].mean() - ranks.mean()) ** 2 for rows in groups)
        shares[name] = float(between / total) if total else 0.0
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _groups(values: Sequence[object]) -> list[list[int]]:
    """The positions of equal values; of more than four numbers those of their quarters."""
    numbers = sorted(value for value in values if isinstance(value, int | float))
    borders = [numbers[len(numbers) * k // 4] for k in (1, 2, 3)] if len(set(numbers)) > 4 else []
    groups: dict[object, list[int]] = {}
    for position, value in enumerate(values):
        name = sum(value >= border for border in borders) if isinstance(value, int | float) and borders else value
        groups.setdefault((type(value).__name__, name), []).append(position)
    return list(groups.values())
