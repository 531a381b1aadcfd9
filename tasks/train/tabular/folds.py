"""Folds of the training rows, on which candidates are compared: forward in time, or by hashed id."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias

from tasks.train.classes import MIN_CLASS_EXAMPLES
from tasks.train.config import Split, Target
from tasks.train.tabular.split import hash_position

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Fold: TypeAlias = "tuple[pd.DataFrame, pd.DataFrame]"  # what is fitted on, and what is predicted

CLASS_ROWS = 50  # of each class, so many stay in a sample
MANY_ROWS = 6000  # from which on three folds tell enough; fewer rows get five


def sample_rows(training: pd.DataFrame, target: Target, rows: int) -> pd.DataFrame:
    """At most about `rows` of them, in their order: those of the lowest hashed ids, and some of each rare class."""
    import numpy as np

    if len(training) <= rows:
        return training
    rank = np.argsort(np.argsort(_positions(training), kind="stable"))
    chosen = rank < rows
    if target.task == "classification":
        rank_in_class = _rank_in_class(training, target)
        chosen |= rank_in_class < CLASS_ROWS
    return training[chosen]


def comparison_folds(
    sample: pd.DataFrame,
    split: Split,
    target: Target,
    *,
    count: int | None = None,
    gap: timedelta = timedelta(0),
    groups: pd.Series | None = None,
) -> list[Fold]:
    """So many folds; by default three, or five of few rows.

    By time, each block of rows is predicted from all rows before it, except those within `gap`, whose outcome was not
    known then. By hash, each class is dealt out over the folds; rows of one of the `groups` stay together.
    """
    count = count or (3 if len(sample) > MANY_ROWS else 5)
    if split.by == "time":
        folds = _forward(sample, count, gap)
    elif groups is not None:
        folds = _grouped(sample, groups, count)
    else:
        folds = _hashed(sample, target, count)
    return [usable for fold in folds if (usable := _usable(fold, target)) is not None]


def _forward(sample: pd.DataFrame, count: int, gap: timedelta) -> list[Fold]:
    times = sample["event_timestamp"]
    ordered = times.sort_values(kind="stable").reset_index(drop=True)
    # the first block is twice as long, so that the first fit has rows enough
    borders = [ordered[len(ordered) * (k + 2) // (count + 2)] for k in range(count)]
    ends = [*borders[1:], None]
    return [
        (sample[times < start - gap], sample[(times >= start) & ((times < end) if end is not None else True)])
        for start, end in zip(borders, ends, strict=True)
    ]


def _grouped(sample: pd.DataFrame, groups: pd.Series, count: int) -> list[Fold]:
    number = groups.map({group: int(hash_position(group) * count) for group in groups.unique()}).to_numpy()
    return [(sample[number != k], sample[number == k]) for k in range(count)]


def _hashed(sample: pd.DataFrame, target: Target, count: int) -> list[Fold]:
    import numpy as np

    if target.task == "classification":
        number = _rank_in_class(sample, target) % count
    else:
        number = np.argsort(np.argsort(_positions(sample), kind="stable")) % count
    return [(sample[number != k], sample[number == k]) for k in range(count)]


def _usable(fold: Fold, target: Target) -> Fold | None:
    """The fold without training rows of classes too rare to be learned; None if nothing is left to compare."""
    train, test = fold
    if target.task == "classification":
        train = train[train.groupby(target.column)[target.column].transform("size") >= MIN_CLASS_EXAMPLES]
        if train[target.column].nunique() < 2 or test[target.column].nunique() < 2:
            return None
    return (train, test) if len(train) and len(test) else None


def _rank_in_class(rows: pd.DataFrame, target: Target) -> np.ndarray:
    """The position of each row among those of its class, by hashed id."""
    import pandas as pd

    positions = pd.Series(_positions(rows), index=rows.index)
    return (positions.groupby(rows[target.column]).rank(method="first") - 1).to_numpy()


def _positions(rows: pd.DataFrame) -> np.ndarray:
    import numpy as np

    return np.fromiter(map(hash_position, rows["example_id"]), float, len(rows))
