"""The champion with its scores recalibrated on the outcomes that arrived: a candidate without training."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.features.results import Frame
from tasks.train.classes import target_labels
from tasks.train.config import Split, Target
from tasks.train.tabular.ensemble import Ensemble, pipelines_of
from tasks.train.tabular.model_file import load, save
from tasks.train.tabular.scoring import typed_frame
from tasks.train.tabular.split import split_frame

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline


def recalibrate(model: Path, frame: Frame, start: datetime, target: Target, split: Split, path: Path) -> Path:
    """Write the model with a logistic regression on its score (Platt scaling), fitted on examples since `start`.

    The case's hold-out, on which the gates evaluate, is left out.

    Raises: DataError when either side is empty or of one class.
    """
    import pandas as pd

    rows = pd.read_parquet(frame.path)
    rows = rows[(rows["event_timestamp"] >= start) & rows[target.column].notna()]
    training, _ = split_frame(rows, split, target)
    champion = load(model)
    values = typed_frame(training, champion.columns, len(training))
    parts = [_calibrated(part, values, training[target.column]) for part in pipelines_of(champion.pipeline)]
    pipeline = Ensemble(parts, champion.pipeline.weights) if champion.members else parts[0]
    pipeline.columns_ = champion.pipeline.columns_
    if hasattr(champion.pipeline, "positive_"):
        pipeline.positive_ = champion.pipeline.positive_
    save(pipeline, path)
    return path


def _calibrated(champion: Pipeline, values: pd.DataFrame, outcomes: pd.Series) -> Pipeline:
    from sklearn.ensemble import StackingClassifier
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline

    encoding, estimator = champion[0], champion[-1]
    # only public types of scikit-learn, which a model file may hold; CalibratedClassifierCV has private ones
    score = "decision_function" if hasattr(estimator, "decision_function") else "predict_proba"
    calibrated = StackingClassifier(
        [("champion", FrozenEstimator(estimator))], LogisticRegression(C=1e6), cv="prefit", stack_method=score
    )
    calibrated.fit(encoding.transform(values), target_labels(outcomes))
    calibrated.named_estimators_ = dict(calibrated.named_estimators_)  # a Bunch may not be in a model file
    pipeline = Pipeline([("columns", encoding), ("model", calibrated)])
    for name in ("columns_", "positive_"):
        if hasattr(champion, name):
            setattr(pipeline, name, getattr(champion, name))
    return pipeline
