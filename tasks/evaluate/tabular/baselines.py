"""What a candidate must beat: a dummy, and plain gradient boosting fitted on the same training rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.code_digest import cache_key
from tasks.core.files import atomic_path
from tasks.evaluate.config import ChampionGate
from tasks.evaluate.metrics import Task
from tasks.evaluate.results import Criterion
from tasks.evaluate.tabular.rows import EvaluationRows
from tasks.features.results import Column
from tasks.statistics.bootstrap import PairedDifference, paired_bootstrap
from tasks.statistics.metric_catalog import LOSSES
from tasks.train.classes import Classes, normalize_label, target_labels
from tasks.train.metrics import compute_metrics, losses

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

DUMMY, PLAIN = "dummy", "plain"
NAMES = {DUMMY: "the average outcome", PLAIN: "plain boosting"}
MAX_CATEGORIES = 254  # boosting takes 255; rarer ones count as missing
MAX_CELLS = 4_000_000  # rows * columns * trees of one iteration: a few seconds
WIDE = 200  # columns * trees of one iteration; beyond it iterations are few
CHANCE = 0.01  # rate at which a model of no use may seem to rank better than chance


def predict_baselines(rows: EvaluationRows, folder: Path, inputs: Any) -> dict[str, np.ndarray]:
    """The predictions of each baseline for the hold-out, in the form of the candidate's.

    They are stored in `folder` by `inputs`, which identify the rows. Plain boosting is left out when its training rows
    have one class.
    """
    import pandas as pd

    names = [(column.name, column.kind) for column in rows.columns]
    path = folder / f"{cache_key(__name__, [inputs, names, rows.target.digest, rows.classes])[:16]}.parquet"
    try:
        stored = pd.read_parquet(path)
    except (OSError, ValueError):
        predictions = fit_baselines(rows)
        stored = pd.DataFrame({f"{name} {k}": each for name, side in predictions.items() for k, each in _parts(side)})
        with atomic_path(path) as temporary:
            stored.to_parquet(temporary, index=False)
    sides = {name: stored[[c for c in map(str, stored) if c.startswith(f"{name} ")]].to_numpy() for name in NAMES}
    several = len(rows.classes) > 2
    return {name: side if several else side[:, 0] for name, side in sides.items() if side.shape[1]}


def baseline_metrics(
    gate: ChampionGate, y: np.ndarray, prediction: np.ndarray, baselines: Mapping[str, np.ndarray], task: Task
) -> dict[str, dict[str, float]]:
    """By baseline: its metrics, and how much lower the candidate's mean loss is, with its interval."""
    tables = {}
    for name, each in baselines.items():
        found = _compare(gate, y, prediction, each)
        differences = {"difference": found.difference, "difference_low": found.low, "difference_high": found.high}
        tables[name] = compute_metrics(y, each, task) | {f"{gate.loss}_{k}": v for k, v in differences.items()}
    return tables


def baseline_criteria(
    gate: ChampionGate, y: np.ndarray, prediction: np.ndarray, baselines: Mapping[str, np.ndarray], task: Task
) -> list[Criterion]:
    """Better than the dummy, or it fails; shown to be worse than plain boosting is a warning."""
    found = {name: _compare(gate, y, prediction, each) for name, each in baselines.items()}
    dummy = found[DUMMY]
    shown, otherwise = dummy.high < 0, ""
    if not shown:
        otherwise = _better_otherwise(gate, y, prediction, baselines[DUMMY], task)
    note = f"{otherwise}; {dummy.sentence}" if otherwise else dummy.sentence
    if not shown and not otherwise and dummy.difference < 0 and (needed := dummy.rows_needed(0.0)):
        note += f"; if that stays so, about {needed:,} examples would show it"
    criteria = [
        Criterion(
            name=f"dummy_{gate.loss}",
            observed=dummy.high,
            required=f"< 0: better than {NAMES[DUMMY]}",
            passed=shown or bool(otherwise),
            note=note,
            conclusive=dummy.difference >= 0,
        )
    ]
    if plain := found.get(PLAIN):
        criteria.append(
            Criterion(
                name=f"plain_{gate.loss}",
                observed=plain.low,
                required=f"<= {gate.margin:g} worse than {NAMES[PLAIN]}",
                passed=not plain.is_worse(gate.margin),
                note=plain.sentence,
                blocking=False,
            )
        )
    return criteria


def _compare(gate: ChampionGate, y: np.ndarray, prediction: np.ndarray, baseline: np.ndarray) -> PairedDifference:
    mine, other = (losses(gate.loss, y, each) for each in (prediction, baseline))
    return paired_bootstrap(mine, other, confidence=gate.confidence, resamples=gate.resamples)


def _better_otherwise(gate: ChampionGate, y: np.ndarray, prediction: np.ndarray, dummy: np.ndarray, task: Task) -> str:
    """How a model beats the dummy that does not by the case's loss; empty when it does not.

    Probabilities can rank well and be badly calibrated, as of weighted classes; errors can be better squared alone.
    """
    from scipy.stats import mannwhitneyu

    for loss in LOSSES[task]:
        if _compare(gate.model_copy(update={"loss": loss}), y, prediction, dummy).high < 0:
            return f"better by {loss}"
    if task == "classification":
        sides = [prediction] if prediction.ndim == 1 else list(prediction.T)
        for k, scores in enumerate(sides):
            positive = y == (1 if prediction.ndim == 1 else k)
            if positive.any() and not positive.all():
                test = mannwhitneyu(scores[positive], scores[~positive], alternative="greater")
                if test.pvalue < CHANCE / len(sides):
                    return "ranks better than chance, but is badly calibrated"
    return ""


def fit_baselines(rows: EvaluationRows) -> dict[str, np.ndarray]:
    """The predictions of each baseline, fitted on the training rows."""
    return {name: score(rows.holdout) for name, score in fitted_baselines(rows).items()}


def fitted_baselines(rows: EvaluationRows) -> dict[str, Callable[[Any], np.ndarray]]:
    """A function for each baseline that predicts rows; plain boosting is left out where all targets are equal."""
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    training, columns, classes = rows.training, rows.columns, rows.classes
    trees = len(classes) if len(classes) > 2 else 1
    limit = max(1000, MAX_CELLS // (len(columns) * trees))
    if len(training) > limit:
        training = training.sample(limit, random_state=0)
    dummy, plain = (
        (DummyClassifier, HistGradientBoostingClassifier)
        if classes
        else (DummyRegressor, HistGradientBoostingRegressor)
    )
    known = training[rows.target.column]
    y = target_labels(known) if classes else known.to_numpy("float64")
    iterations = 100 if len(columns) * trees <= WIDE else 30
    estimators = {DUMMY: dummy()}
    if len(set(y)) > 1:
        estimators[PLAIN] = plain(categorical_features="from_dtype", max_iter=iterations, random_state=0)
    x = _features(training, training, columns)
    fitted = {name: estimator.fit(x, y) for name, estimator in estimators.items()}
    return {name: partial(_score, estimator, training, rows) for name, estimator in fitted.items()}


def _score(estimator: Any, training: pd.DataFrame, rows: EvaluationRows, values: Any) -> np.ndarray:
    import pandas as pd

    return _predict(estimator, _features(pd.DataFrame(values), training, rows.columns), rows.classes)


def _features(frame: pd.DataFrame, training: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """Numbers as they are, and texts as categories of the training rows."""
    import pandas as pd

    features = {}
    for column in columns:
        values = frame[column.name]
        if column.kind == "text":
            known = training[column.name].value_counts().index[:MAX_CATEGORIES]
            features[column.name] = pd.Series(pd.Categorical(values, categories=sorted(known)), index=frame.index)
        else:
            features[column.name] = values.astype("float64")
    return pd.DataFrame(features)


def _predict(estimator: Any, features: pd.DataFrame, classes: Classes) -> np.ndarray:
    """As a candidate predicts; a class that the estimator does not know has probability 0."""
    import numpy as np

    if not classes:
        return np.asarray(estimator.predict(features), float)
    known = list(map(normalize_label, estimator.classes_))
    scores = estimator.predict_proba(features)
    each = [scores[:, known.index(name)] if name in known else np.zeros(len(features)) for name in classes]
    return np.column_stack(each) if len(classes) > 2 else each[-1]


def _parts(predictions: np.ndarray) -> list[tuple[int, np.ndarray]]:
    return list(enumerate([predictions] if predictions.ndim == 1 else predictions.T))
