"""The search of a table: candidates are train sections, measured on folds of the training rows."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tasks.core.code_digest import cache_key
from tasks.core.errors import DataError
from tasks.evaluate.config import Fairness
from tasks.evaluate.fairness import shown_unfair
from tasks.features.results import Frame
from tasks.search.config import Search
from tasks.search.problem import Combination, Complete, Configuration, Cost, Scores
from tasks.search.results import TrialRecord
from tasks.search.tabular.combine import combine_best
from tasks.search.tabular.estimate import estimate_fit
from tasks.search.tabular.losses import example_losses
from tasks.search.tabular.space import Space, arm_of
from tasks.search.tabular.table import FOLDS, SearchTable, load_table
from tasks.train.classes import encode_target, infer_classes
from tasks.train.config import Target, Train
from tasks.train.metrics import compute_metrics
from tasks.train.tabular.fit import fit_pipeline
from tasks.train.tabular.pipeline import build_pipeline
from tasks.train.tabular.scoring import Model, predict, prepare, thread_pools, typed_frame

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from optuna import Trial

START_SHARE, FEWEST_ROWS = 0.2, 2000
TIMED_ROWS = 15  # that are scored alone
# of train, what a search changes
SECTION = ("family", "parameters", "encoders", "target_transform", "calibration", "weight", "ensemble")


@dataclass(frozen=True)
class TabularProblem:
    """A tabular case as a problem for the engine. Rows of the hold-out are never read into it."""

    case: str
    frame: Frame
    target: Target
    train: Train
    settings: Search
    metric: str
    ms_per_row: float | None  # at most, alone
    workers: int = 2
    share: float = 1.0  # of the training rows that are searched
    fairness: Fairness | None = None  # differences between groups that no trial may exceed

    @property
    def key(self) -> str:
        return cache_key(
            __name__,
            {
                "case": self.case,
                "data": [self.frame.data_digest, self.frame.definitions_digest, self.frame.rows],
                "target": self.target.digest,
                "train": self.train.digest,
                "metric": self.metric,
                "share": self.share,
                "fairness": self.fairness.model_dump(mode="json") if self.fairness else None,
                "ms_per_row": self.ms_per_row,
                "settings": self.settings.model_dump(mode="json", exclude={"budget", "prefer", "within"}),
            },
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}  # not the table

    @cached_property
    def table(self) -> SearchTable:
        return load_table(self)

    @property
    def own(self) -> dict[str, Any]:
        """The train section of the case."""
        return self.train.model_dump(mode="json", include=set(SECTION), exclude_defaults=True)

    @property
    def sensitive(self) -> tuple[str, ...]:
        return self.fairness.columns if self.fairness and self.fairness.gates else ()

    @property
    def space(self) -> Space:
        return self.table.space

    @property
    def rungs(self) -> Sequence[str]:
        return self.table.names

    def prepare(self) -> None:
        import sklearn.ensemble
        import sklearn.linear_model
        import sklearn.neural_network  # noqa: F401 (so that each fork has it)

        self.table  # noqa: B018 (loads it)
        thread_pools()

    def start(self) -> Configuration:
        return self._configuration(self.train.model_dump(mode="json", include=set(SECTION)))

    def first(self) -> Sequence[Mapping[str, Any]]:
        return self.space.first()

    def suggest(self, trial: Trial) -> Configuration:
        return self._configuration(self.space.suggest(trial))

    def _configuration(self, section: Mapping[str, Any]) -> Configuration:
        config = Train(**section, split=self.train.split)
        return config.model_dump(mode="json", include=set(SECTION), exclude_none=True, exclude_defaults=True)

    def refusal(self, configuration: Configuration) -> str:
        return ""

    def exceeded(self, record: TrialRecord) -> str:
        if self.ms_per_row and record.call_seconds * 1000 > self.ms_per_row:
            return f"{record.call_seconds * 1000:.1f} ms a row, more than {self.ms_per_row:g}"
        return ""

    def estimate(self, configuration: Configuration, rung: int) -> Cost:
        if others := configuration.get("ensemble", ()):
            alone = {**configuration, "ensemble": ()}
            each = [self.estimate(dict(member), rung) for member in (alone, *others)]
            return Cost(sum(cost.seconds for cost in each), sum(cost.memory for cost in each))
        shape = self.space.shape
        outputs = self.space.classes if self.space.classes > 2 else 1
        rows = len(self.table.folds[rung][0])
        width = len(shape.roles) + 8 * len(shape.named("date")) + 30 * len(shape.named("text"))
        if "OneHotEncoder" in str(configuration.get("encoders")):
            width += sum(column.distinct for column in shape.roles if column.role == "category")
        return estimate_fit(configuration, rows, width, outputs)

    def measure(self, configuration: Configuration, rung: int) -> Scores:
        training, test = self.table.folds[rung]
        fixed = {"split": self.train.split, "seed": self.train.seed, "threads": 1, "reweigh": self.train.reweigh}
        config = Train(**configuration, **fixed)
        columns = self.frame.columns
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a fit that does not converge in time: its losses show it
            rows = training.tail(self.train.rows) if self.train.rows else training
            pipeline = build_pipeline(config, self.target.task, columns)
            fit_pipeline(pipeline, rows, self.target, config, columns)
            model = prepare(pipeline, is_compiled=rung == 0)
            prediction = _predict_together(model, test)
        outcome = encode_target(test[self.target.column], model.classes)
        return Scores(
            losses=example_losses(self.metric, outcome, prediction),
            call_seconds=0.0 if rung else _seconds_alone(model, test),
            metrics=compute_metrics(outcome, prediction, self.target.task),
            predictions=prediction,
            refusal=self._unfair(rung, outcome, prediction),
        )

    def _unfair(self, rung: int, outcome: np.ndarray, prediction: np.ndarray) -> str:
        """The difference between groups that is shown to be too large on a fold; empty where none is."""
        _, test = self.table.folds[rung]
        return shown_unfair(self.fairness, test, outcome, prediction) if self.sensitive and self.fairness else ""

    def combine(self, trials: Sequence[Complete]) -> Combination | None:
        import numpy as np

        limit = self.ms_per_row / 1000 if self.ms_per_row else math.inf
        outcomes = [self._outcome(test) for _, test in self.table.folds]
        found = combine_best(trials, outcomes, self.metric, task=self.target.task, seconds=limit)
        if found is None or not self.sensitive:
            return found
        scores = [
            replace(each, refusal=self._unfair(rung, outcomes[rung], np.asarray(each.predictions)))
            for rung, each in enumerate(found.scores)
        ]
        return replace(found, scores=scores)

    def _outcome(self, test: pd.DataFrame) -> np.ndarray:
        known = self.table.folds[-1][0][self.target.column]
        classes = infer_classes(known, self.target) if self.target.task == "classification" else ()
        return encode_target(test[self.target.column], classes)

    def clusters(self, rung: int) -> Sequence[str] | None:
        return self.table.clusters[rung]

    def arm(self, configuration: Configuration) -> str:
        return "ensemble" if configuration.get("ensemble") else arm_of(configuration["family"])

    def describe(self, configuration: Configuration) -> str:
        if others := configuration.get("ensemble", ()):
            members = [configuration, *others]
            return "mean of " + ", ".join(f"{each.get('weight', 1):g} {arm_of(each['family'])}" for each in members)
        parameters = configuration.get("parameters", {})
        shown = [f"{name} {value}" for name, value in parameters.items() if isinstance(value, int | float)]
        return ", ".join([self.arm(configuration), *shown])

    @property
    def owned(self) -> Mapping[str, Sequence[str]]:
        return {"train": SECTION}

    def as_change(self, configuration: Configuration) -> dict[str, dict[str, Any] | None]:
        return {"train": dict(configuration)}


def _predict_together(model: Model, test: pd.DataFrame) -> np.ndarray:
    """All rows at once, also where `predict` takes them one by one so that no row's last digit depends on others."""
    import numpy as np

    if model.members:
        parts = [_predict_together(member, test) for member in model.members]
        return np.asarray(np.average(parts, axis=0, weights=model.weights))
    if model.row_mode != "single":
        return predict(model, test)
    matrix = model.pipeline[0].transform(typed_frame(test, model.columns, len(test)))
    if model.classifies:
        return np.asarray(model.estimator.predict_proba(matrix)[:, model.output], np.float64)
    return np.asarray(model.estimator.predict(matrix), np.float64).reshape(-1)


def _seconds_alone(model: Model, test: pd.DataFrame) -> float:
    """The median seconds of one row alone."""
    rows = [
        {column.name: [row[column.name]] for column in model.columns}
        for row in test.head(TIMED_ROWS).to_dict("records")
    ]
    seconds = []
    for row in rows:
        start = time.perf_counter()
        predict(model, row)
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[len(seconds) // 2] if seconds else math.nan


def fitting_share(train: Train, frame: Frame, seconds: float | None) -> float:
    """The share of the rows on which the case as it is takes a fifth of the budget: 1, a half, a quarter, ..."""
    if seconds is None:
        return 1.0
    section = train.model_dump(mode="json", include=set(SECTION))
    share = 1.0
    while share * frame.rows > FEWEST_ROWS:
        rows = int(share * frame.rows)
        if FOLDS * estimate_fit(section, rows, len(frame.columns), 1).seconds <= START_SHARE * seconds:
            break
        share /= 2
    return share


def check_metric(metric: str, task: str) -> str:
    """Raises: DataError for a metric that has no losses of single examples."""
    from tasks.search.tabular.losses import METRICS

    if metric not in METRICS[task]:
        raise DataError(
            f"A search can't compare candidates by {metric}.",
            where="search.metric",
            found=metric,
            allowed=", ".join(METRICS[task]),
            todo="Name one of these: each is a mean over examples, so that losers are seen early.",
        )
    return metric
