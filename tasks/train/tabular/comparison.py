"""Compare candidate models on folds of the training rows."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.core.errors import CaseError
from tasks.features.results import Column
from tasks.statistics.metric_catalog import worse_by
from tasks.train.classes import encode_target
from tasks.train.config import Split, Target, Train
from tasks.train.metrics import compute_metrics
from tasks.train.tabular.fit import fit
from tasks.train.tabular.folds import Fold
from tasks.train.tabular.pipeline import build_pipeline
from tasks.train.tabular.scoring import predict

if TYPE_CHECKING:
    pass

NEAR = 0.005  # of the metric, or of its share where it is beyond 1


@dataclass(frozen=True)
class Compared:
    """A candidate and its metric on each fold."""

    name: str
    train: dict[str, Any]  # its train section, without split
    metric: str
    by_fold: tuple[float, ...]  # empty where it can't be fitted
    tie_breaker: float  # mean log loss, or mean absolute error in the target's unit
    seconds: float
    problem: str = ""

    @property
    def mean(self) -> float:
        return sum(self.by_fold) / len(self.by_fold) if self.by_fold else math.nan

    @property
    def standard_error(self) -> float:
        return standard_error(self.by_fold)


@dataclass(frozen=True)
class Comparison:
    """What all candidates are compared on."""

    folds: Sequence[Fold]
    target: Target
    split: Split
    metric: str
    tie_breaker: str

    def measure(self, name: str, section: dict[str, Any], columns: Sequence[Column]) -> Compared:
        """Fit a candidate on each fold, by the code that `run` trains with."""
        config = Train(**section, split=self.split, threads=1)  # small fits wait for a second thread for longer
        start = time.perf_counter()
        scores: list[dict[str, float]] = []
        problem = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a fit that does not converge in time: its metric shows it
                scores = [self._score(config, fold, columns) for fold in self.folds]
        except CaseError as error:
            problem = error.found
        by_fold = tuple(score[self.metric] for score in scores if self.metric in score)
        ties = [score[self.tie_breaker] for score in scores]
        return Compared(
            name=name,
            train=section,
            metric=self.metric,
            by_fold=by_fold,
            tie_breaker=sum(ties) / len(ties) if ties else math.inf,
            seconds=time.perf_counter() - start,
            problem=problem,
        )

    def _score(self, config: Train, fold: Fold, columns: Sequence[Column]) -> dict[str, float]:
        training, test = fold
        pipeline = build_pipeline(config, self.target.task, columns)
        model = fit(pipeline, training, self.target, config, columns)
        outcome = encode_target(test[self.target.column], model.classes)
        return compute_metrics(outcome, predict(model, test), self.target.task)


def best(candidates: Sequence[Compared]) -> Compared:
    """The candidate of the best mean, or of those that equal it the one of the lowest tie breaker.

    Equal is what is worse by at most NEAR, and by at most a standard error of the paired difference.
    """
    fitted = [each for each in candidates if each.by_fold]
    top = min(fitted, key=lambda each: worse_by(each.metric, each.mean, 0.0))
    return min((each for each in fitted if _equals(each, top)), key=lambda each: each.tie_breaker)


def _equals(candidate: Compared, top: Compared) -> bool:
    lost = [worse_by(top.metric, a, b) for a, b in zip(candidate.by_fold, top.by_fold, strict=False)]
    mean = sum(lost) / len(lost)
    return mean <= min(NEAR * max(1.0, abs(top.mean)), standard_error(lost))


def standard_error(values: Sequence[float]) -> float:
    """Of the mean; 0 of fewer than two values."""
    if len(values) < 2:
        return 0.0
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
