"""The champion as it is, its scores calibrated on the outcomes that have arrived: a candidate without training."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tasks.features.results import Frame
from tasks.train.classes import target_labels
from tasks.train.config import Split, Target
from tasks.train.tabular.model_file import load, save
from tasks.train.tabular.split import split_frame


def recalibrate(model: Path, frame: Frame, start: datetime, target: Target, split: Split, path: Path) -> Path:
    """Write the model with a logistic regression on its score behind it, fitted on examples since `start`.

    The case's hold-out, which the gates will judge on, is left out: split by time, it lies after what was fitted on.
    Raises: DataError when either side is empty or of one class.
    """
    import pandas as pd
    from sklearn.ensemble import StackingClassifier
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline

    rows = pd.read_parquet(frame.path)
    rows = rows[(rows["event_timestamp"] >= start) & rows[target.column].notna()]
    learn, _ = split_frame(rows, split, target)
    made = load(model)
    encoding, estimator = made.pipeline[0], made.pipeline[-1]
    # of scikit-learn's public types alone, which the model file's list has; CalibratedClassifierCV holds private ones
    score = "decision_function" if hasattr(estimator, "decision_function") else "predict_proba"
    calibrated = StackingClassifier(
        [("champion", FrozenEstimator(estimator))], LogisticRegression(C=1e6), cv="prefit", stack_method=score
    )
    values = learn[[column.name for column in made.columns]]
    calibrated.fit(encoding.transform(values), target_labels(learn[target.column]))
    calibrated.named_estimators_ = dict(calibrated.named_estimators_)  # a type that the list does not have
    pipeline = Pipeline([("columns", encoding), ("model", calibrated)])
    pipeline.columns_ = made.pipeline.columns_
    if hasattr(made.pipeline, "positive_"):
        pipeline.positive_ = made.pipeline.positive_
    save(pipeline, path)
    return path
