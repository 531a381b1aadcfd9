"""Ways to lessen differences between groups of people, side by side: what each costs, and what differs after it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tasks.core.config import Result
from tasks.core.errors import CaseError, DataError
from tasks.evaluate.config import Fairness
from tasks.evaluate.fairness import largest_difference
from tasks.statistics.bootstrap import paired_bootstrap
from tasks.train.classes import DECISION_THRESHOLD, encode_target
from tasks.train.config import Mitigation, Target, Train
from tasks.train.metrics import compute_metrics
from tasks.train.results import Candidate
from tasks.train.tabular.fit import fit
from tasks.train.tabular.model_file import predict
from tasks.train.tabular.pipeline import build_pipeline
from tasks.train.tabular.split import split_frame

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from tasks.train.tabular.model_file import Model

UNMITIGATED = "unmitigated"
QUALITY = ("auc", "brier", "calibration_error")


class Interval(Result):
    """A value with one-sided bounds."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


class Mitigated(Result):
    """The case's model with one mitigation, on the hold-out."""

    name: str  # unmitigated, or the key under train
    seconds: float  # of its training
    metrics: dict[str, float]
    cost: Interval | None  # share of wrong decisions, minus that of the unmitigated model; None: it is that model
    differences: dict[str, Interval]  # largest one between groups, by metric
    problem: str = ""  # why it could not be trained


def compare_mitigations(
    candidate: Candidate, target: Target, train: Train, *, fairness: Fairness, mitigation: Mitigation
) -> Iterator[Mitigated]:
    """Train the case's model in each way, on the training rows of a candidate, and compare them on its hold-out."""
    import pandas as pd

    table = pd.read_parquet(candidate.frame)
    training, holdout = split_frame(table[table[target.column].notna()], train.split, target)
    if train.rows:
        training = training.tail(train.rows)
    section = mitigation.model_dump()
    ways: dict[str, dict[str, Any]] = {
        UNMITIGATED: {},
        "reweigh": {"reweigh": mitigation.columns},
        "reductions": {"reductions": section},
        "thresholds": {"thresholds": {**section, "basis": "compared, not released"}},
    }
    wrong: np.ndarray | None = None
    for name, keys in ways.items():
        config = Train.model_validate({**train.unmitigated.model_dump(), **keys})
        started = time.perf_counter()
        try:
            pipeline = build_pipeline(config, target.task, candidate.columns)
            model = fit(pipeline, training, target, config, candidate.columns)
        except (CaseError, DataError) as error:
            problem = f"{error.what} {error.found}".strip()
            yield Mitigated(name=name, seconds=0, metrics={}, cost=None, differences={}, problem=problem)
            continue
        found, errors = _measured(model, holdout, target, fairness, mitigation)
        seconds = time.perf_counter() - started
        yield Mitigated(name=name, seconds=seconds, cost=None if wrong is None else _cost(errors, wrong), **found)
        wrong = errors if wrong is None else wrong


def _measured(
    model: Model, holdout: pd.DataFrame, target: Target, fairness: Fairness, mitigation: Mitigation
) -> tuple[dict[str, Any], np.ndarray]:
    """Metrics and differences, and which decisions are wrong, 0 or 1."""
    y, p = encode_target(holdout[target.column], model.classes), predict(model, holdout)
    wrong = ((p >= DECISION_THRESHOLD) != (y > 0.5)).astype(float)
    metrics = compute_metrics(y, p, target.task)
    named = dict.fromkeys((*(gate.metric for gate in fairness.gates), mitigation.metric))
    differences = {name: largest_difference(fairness, holdout, y, p, name) for name in named}
    shown = {
        name: Interval(value=each.difference, low=each.low, high=each.high)
        for name, each in differences.items()
        if each is not None
    }
    quality = {"error": float(wrong.mean()), **{name: float(metrics[name]) for name in QUALITY if name in metrics}}
    return {"metrics": quality, "differences": shown}, wrong


def _cost(wrong: np.ndarray, unmitigated: np.ndarray) -> Interval:
    found = paired_bootstrap(wrong, unmitigated)
    return Interval(value=found.difference, low=found.low, high=found.high)
