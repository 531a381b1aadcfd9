"""Candidates of a table that must not be released, each bad in one way by construction."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tasks.core.errors import DriftlineError
from tasks.evaluate.config import Evaluate
from tasks.evaluate.tabular.baselines import PLAIN, fitted_baselines
from tasks.evaluate.tabular.gates import SINGLE_ROWS
from tasks.evaluate.tabular.rows import EvaluationRows
from tasks.features.results import Column
from tasks.train.classes import encode_target

if TYPE_CHECKING:
    import numpy as np

Score = Callable[[Any], "np.ndarray"]  # of a table, or of columns by name

LEAK = "copy_of_the_target"
MISSING_SHARE = 0.2
SLOW_ROWS = 5  # of the slow candidate, scored one at a time
MIN_SLICE = 200  # rows of a slice where the case has no slice gate


@dataclass(frozen=True)
class BadCandidate:
    """What is wrong with it, the key of the case whose gate is there for it, and how it scores rows."""

    name: str
    flaw: str
    gate: str
    rows: EvaluationRows
    score: Score
    single_rows: int = SINGLE_ROWS
    is_slow: bool = False  # the only one that a measured time may catch, since a busy machine would catch any


def bad_candidates(rows: EvaluationRows, config: Evaluate, good: Score) -> Iterator[BadCandidate]:
    """One after the other; `good` scores rows as the case's model does."""
    import numpy as np

    random = np.random.default_rng(0)
    target = rows.target.column
    shuffled = rows.training.assign(**{target: random.permutation(rows.training[target].to_numpy())})
    yield BadCandidate(
        "shuffled labels",
        "was trained on labels in random order",
        "evaluate.bounds",
        rows,
        _boosting(replace(rows, training=shuffled)),
    )
    leaking = _with_leak(rows)
    yield BadCandidate(
        "leaked feature", "was trained with a copy of the target", "evaluate (leaks)", leaking, _boosting(leaking)
    )
    yield BadCandidate(
        "constant predictor",
        "answers every row with the average outcome",
        "evaluate.bounds",
        rows,
        _Constant(rows),
    )
    if (biased := _biased(rows, config, good)) is not None:
        yield biased
    yield BadCandidate(
        "no missing values",
        "never saw a missing value, and gives no answer where one is missing",
        "evaluate.bounds",
        _with_missing(rows, random),
        _Unanswering(good, _number(rows)),
    )
    limit = config.ms_per_row or 50.0
    yield BadCandidate(
        "slow", f"needs over {limit:g} ms a row", "evaluate.ms_per_row", rows, _Slow(good, limit), SLOW_ROWS, True
    )


def _boosting(rows: EvaluationRows) -> Score:
    fitted = fitted_baselines(rows)
    if PLAIN not in fitted:
        raise DriftlineError("The training rows have one class, so no candidate can be trained on them.")
    return fitted[PLAIN]


def _with_leak(rows: EvaluationRows) -> EvaluationRows:
    sides = {
        side: getattr(rows, side).assign(**{LEAK: encode_target(getattr(rows, side)[rows.target.column], rows.classes)})
        for side in ("training", "holdout")
    }
    column = Column(name=LEAK, kind="number", origin="request")
    return replace(rows, **sides, columns=(*rows.columns, column))


def _biased(rows: EvaluationRows, config: Evaluate, good: Score) -> BadCandidate | None:
    """A candidate that answers one slice the wrong way round; None when no slice is large enough."""
    smallest = config.slice_gate.min_rows if config.slice_gate else MIN_SLICE
    taken = {column.name for column in rows.columns}
    for column in sorted(config.slices, key=lambda name: name not in taken):
        counts = rows.holdout[column].value_counts()
        counts = counts[(counts >= smallest) & (counts < len(rows.holdout))]
        if len(counts):
            value = counts.index[-1]
            return BadCandidate(
                "biased slice",
                f"answers the wrong way round where {column} is {value}",
                "evaluate.slice_gate",
                rows,
                _Biased(good, column, value, bool(rows.classes)),
            )
    return None


def _number(rows: EvaluationRows) -> str:
    """A column of numbers, else any."""
    numbers = [column.name for column in rows.columns if column.kind == "number"]
    return numbers[0] if numbers else rows.columns[0].name


def _with_missing(rows: EvaluationRows, random: np.random.Generator) -> EvaluationRows:
    name = _number(rows)
    held = rows.holdout.copy()
    values = held[name].astype(object)
    values[random.random(len(held)) < MISSING_SHARE] = None
    return replace(rows, holdout=held.assign(**{name: values}))


@dataclass(frozen=True)
class _Constant:
    rows: EvaluationRows

    def __call__(self, values: Any) -> np.ndarray:
        import numpy as np

        y = encode_target(self.rows.training[self.rows.target.column], self.rows.classes)
        count, classes = len(next(iter(dict(values).values()))), len(self.rows.classes)
        if classes > 2:
            return np.tile(np.bincount(y.astype(int), minlength=classes) / len(y), (count, 1))
        return np.full(count, y.mean())


@dataclass(frozen=True)
class _Biased:
    good: Score
    column: str
    value: Any
    classifies: bool

    def __call__(self, values: Any) -> np.ndarray:
        import numpy as np

        scores = self.good(values).copy()
        if self.column in values:
            of_slice = np.asarray(values[self.column], object) == self.value
            if scores.ndim > 1:
                scores[of_slice] = scores[of_slice][:, ::-1]
            else:
                scores[of_slice] = 1 - scores[of_slice] if self.classifies else -scores[of_slice]
        return scores


@dataclass(frozen=True)
class _Unanswering:
    good: Score
    column: str

    def __call__(self, values: Any) -> np.ndarray:
        import numpy as np
        import pandas as pd

        scores = self.good(values).copy()
        scores[pd.isna(np.asarray(values[self.column], object))] = np.nan
        return scores


@dataclass(frozen=True)
class _Slow:
    good: Score
    limit: float  # milliseconds

    def __call__(self, values: Any) -> np.ndarray:
        scores = self.good(values)
        if len(scores) == 1:
            time.sleep(1.5 * self.limit / 1000)
        return scores
