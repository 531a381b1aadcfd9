"""Mitigation of differences between groups of people: a mixture of models by reductions, or thresholds by group.

Sources: Agarwal et al., A Reductions Approach to Fair Classification (2018), by fairlearn; thresholds after Hardt,
Price and Srebro, Equality of Opportunity in Supervised Learning (2016), without their random decisions: two people who
are equal are decided on equally.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from tasks.core.errors import CaseError, DataError
from tasks.features.results import Column
from tasks.train.classes import Classes, encode_target
from tasks.train.config import Mitigation, Target, Train

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from sklearn.pipeline import Pipeline

    from tasks.train.tabular.ensemble import Ensemble
    from tasks.train.tabular.group_thresholds import GroupThresholds
    from tasks.train.tabular.scoring import Model

MIN_GROUP = 500  # training rows; a smaller group is decided at 0.5
GRID = 200  # thresholds that are tried
WINDOWS = 50  # places of the window in which all groups' rates must lie
FOLDS = 5
MOMENTS = {
    "selection_rate": "DemographicParity",
    "true_positive_rate": "TruePositiveRateParity",
    "false_positive_rate": "FalsePositiveRateParity",
    "equalized_odds": "EqualizedOdds",
}


def check_mitigation(config: Train, classes: Sequence[Any], columns: Sequence[Column]) -> None:
    """Raises: CaseError when there are not two classes, or thresholds need a column that no request has."""
    where = f"train.{config.mitigation}"
    if config.sensitive and len(classes) != 2 and not (config.reweigh and classes):
        raise CaseError(
            "Only decisions between classes can be mitigated, by reductions or thresholds only between two.",
            where=where,
            found=f"{len(classes)} classes" if classes else "target.task: regression",
            todo=f"Remove {where}.",
        )
    names = [column.name for column in columns]
    if config.thresholds and (absent := [name for name in config.thresholds.columns if name not in names]):
        raise CaseError(
            "A threshold by group needs the group of each request.",
            where=f"{where}.columns",
            found=", ".join(absent),
            allowed=", ".join(names),
            todo="Name features of the model, or take train.reductions, which need the group in training alone.",
        )


class _OfOutcome:
    """An estimator for fairlearn, whose labels are 0 and 1, of one whose labels are the case's classes."""

    def __init__(self, estimator: Any, labels: np.ndarray) -> None:
        self.estimator, self.labels = estimator, labels

    def fit(self, matrix: Any, outcome: Any, sample_weight: Any) -> _OfOutcome:
        import numpy as np
        from sklearn.base import clone

        from tasks.train.tabular.ensemble import remove_threads

        self.fitted = clone(self.estimator)
        self.fitted.fit(matrix, self.labels[np.asarray(outcome, int)], sample_weight=np.asarray(sample_weight))
        remove_threads(self.fitted)
        return self

    def predict(self, matrix: Any) -> Any:
        import numpy as np

        return np.asarray(self.fitted.predict(matrix) == self.labels[1]).astype(int)


def fit_mixture(
    estimator: Any, matrix: Any, examples: pd.DataFrame, target: tuple[Target, Classes], train: Train
) -> tuple[list[Any], list[float]]:
    """Estimators and their weights, whose decisions differ between groups by at most the bound on the training rows.

    Raises: CaseError.
    """
    import numpy as np
    from fairlearn import reductions
    from sklearn.utils.validation import has_fit_parameter

    from tasks.train.tabular.group_thresholds import group_names

    config = train.reductions
    assert config
    if not has_fit_parameter(estimator, "sample_weight"):
        raise CaseError(
            f"{type(estimator).__name__} takes no weights of rows, which reductions need.",
            where="train.family",
            found=type(estimator).__name__,
            allowed="boosting, forests, trees, logistic regression",
            todo="Take another family, or train.thresholds.",
        )
    outcome, labels = encode_target(examples[target[0].column], target[1]).astype(int), np.asarray(target[1])
    # a moment bounds each group's distance from all rows, so two groups differ by twice as much
    moment = getattr(reductions, MOMENTS[config.metric])(difference_bound=config.at_most / 2)
    search = reductions.ExponentiatedGradient(
        _OfOutcome(estimator, labels), moment, eps=min(0.01, config.at_most / 2), max_iter=config.iterations
    )
    search.fit(matrix, outcome, sensitive_features=group_names(examples, list(config.columns)))
    pairs = zip(search.predictors_, search.weights_, strict=True)
    chosen = [(each, float(weight)) for each, weight in pairs if weight > 0]
    if not all(isinstance(each, _OfOutcome) for each, _ in chosen):
        raise CaseError(
            "No mixture of models that tell rows from one another keeps this bound.",
            where="train.reductions.at_most",
            found=f"{config.at_most:g}, which only deciding alike on all rows keeps",
            todo="Take a larger bound, or train.thresholds.",
        )
    return [each.fitted for each, _ in chosen], [weight for _, weight in chosen]


def in_pipelines(pipeline: Pipeline, estimators: Sequence[Any], weights: Sequence[float]) -> Ensemble:
    """The mixture as an ensemble of pipelines, which share their encoding."""
    from sklearn.pipeline import Pipeline

    from tasks.train.tabular.ensemble import Ensemble

    parts = [Pipeline([pipeline.steps[0], (pipeline.steps[-1][0], each)]) for each in estimators]
    return Ensemble(parts, list(weights))


def with_thresholds(
    fit: Callable[[pd.DataFrame], Model],
    examples: pd.DataFrame,
    target: Target,
    *,
    config: Train,
    columns: Sequence[Column],
) -> GroupThresholds:
    """Fit on all examples, with the threshold of each group chosen on predictions for rows that were held out.

    Raises: CaseError, DataError.
    """
    from tasks.train.tabular.ensemble import copy_description
    from tasks.train.tabular.group_thresholds import GroupThresholds, group_names

    model = fit(examples)
    check_mitigation(config, model.classes, columns)
    assert config.thresholds
    names = list(config.thresholds.columns)
    scores = _cross_predicted(fit, examples)
    outcome = encode_target(examples[target.column], model.classes)
    thresholds = choose_thresholds(scores, outcome, group_names(examples, names), config.thresholds)
    return copy_description(model.pipeline, GroupThresholds(model.pipeline, names, thresholds))


def _cross_predicted(fit: Callable[[pd.DataFrame], Model], examples: pd.DataFrame) -> np.ndarray:
    """A score of each example by a model that was fitted without it: a model's own training rows flatter it."""
    import numpy as np

    from tasks.train.tabular.scoring import predict

    fold = np.random.default_rng(0).permutation(len(examples)) % FOLDS
    scores = np.empty(len(examples))
    for number in range(FOLDS):
        scores[fold == number] = predict(fit(examples[fold != number]), examples[fold == number])
    return scores


def choose_thresholds(
    scores: np.ndarray, outcome: np.ndarray, groups: Sequence[str], config: Mitigation
) -> dict[str, float]:
    """The thresholds of the fewest wrong decisions among those whose rates lie within a window of the bound's width.

    Raises: DataError when fewer than two groups are large enough, or no thresholds keep the bound.
    """
    import numpy as np

    from tasks.train.tabular.group_thresholds import rates_by_threshold

    names = np.asarray(groups, object)
    counts = {name: int((names == name).sum()) for name in sorted(set(groups))}
    large = [name for name, rows in counts.items() if rows >= MIN_GROUP]
    if len(large) < 2:
        raise DataError(
            "Thresholds by group need two groups that are large enough.",
            where="train.thresholds.columns",
            found=", ".join(f"{name} ({rows:,} rows)" for name, rows in counts.items())[:200],
            allowed=f"{MIN_GROUP} training rows each",
            todo="Name columns with fewer values, or remove train.thresholds.",
        )
    limits = np.unique(np.append(np.quantile(scores, np.linspace(0, 1, GRID)), 0.5)).clip(1e-6, 1 - 1e-6)
    equal = config.metric == "equalized_odds"
    metrics = ("true_positive_rate", "false_positive_rate") if equal else (config.metric,)
    rates, errors = [], []
    for name in large:
        of_group, wrong = rates_by_threshold(scores[names == name], outcome[names == name], limits)
        rates.append([of_group[metric] for metric in metrics])
        errors.append(wrong)
    best: tuple[float, list[int]] = (np.inf, [])
    for starts in product(np.linspace(0, 1, WINDOWS), repeat=len(metrics)):
        within = [
            np.all([(rate >= s) & (rate <= s + config.at_most) for rate, s in zip(each, starts, strict=True)], axis=0)
            for each in rates
        ]
        if all(each.any() for each in within):
            costs = [np.where(each, wrong, np.inf) for each, wrong in zip(within, errors, strict=True)]
            total = float(sum(each.min() for each in costs))
            best = min(best, (total, [int(each.argmin()) for each in costs]))
    if not best[1]:
        raise DataError(
            "No thresholds keep the bound on the training rows.",
            where="train.thresholds.at_most",
            found=f"{config.at_most:g} between {', '.join(large)}",
            todo="Take a larger bound.",
        )
    return {name: float(limits[position]) for name, position in zip(large, best[1], strict=True)}
