"""Turns a release of a guardrail's case, guard-NAME, into the classifier that guardrails load."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import DataError
from tasks.guard.classifier import Classifier, load_classifier, save_classifier
from tasks.guard.files import trained_folder
from tasks.guard.ngrams import windows
from tasks.release.results import Release

if TYPE_CHECKING:
    import numpy as np

PREFIX = "guard-"  # of the cases whose releases are classifiers of guardrails
LONG_RATE = 0.1  # of the benign texts that long and short ones are compared at: of 1 % there are too few
RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)  # false alarms for which a threshold is fitted


def export_classifier(release: Release, state: Path) -> Classifier | None:
    """Write the classifier of a guardrail's case where guardrails find it; None of another case's release."""
    if not release.case.startswith(PREFIX):
        return None
    return write_classifier(release, trained_folder(state) / release.case.removeprefix(PREFIX))


def write_classifier(release: Release, folder: Path) -> Classifier:
    """Write the classifier of a release as a folder, and return it; an unchanged one is not fitted again.

    Raises: DataError when the release is not a linear model over the character n-grams of one text.
    """
    if folder.is_dir():
        existing = load_classifier(folder)
        if existing.about.get("release") == release.digest:
            return existing
    classifier = _fitted(release)
    save_classifier(classifier, folder)
    return classifier


def _linear_parts(release: Release) -> tuple[np.ndarray, float, tuple[int, ...]]:
    import numpy as np

    from tasks.train.tabular.encoders import CharacterNgrams
    from tasks.train.tabular.model_file import read

    pipeline = read(release.model)
    encoders = [step for _, step, _ in pipeline[0].transformers_ if step != "drop"]
    model = pipeline[-1]
    if len(encoders) != 1 or not isinstance(encoders[0], CharacterNgrams) or not hasattr(model, "coef_"):
        raise DataError(
            "The release is no classifier that guardrails can load.",
            where=str(release.model),
            found=f"{type(model).__name__} after {', '.join(type(each).__name__ for each in encoders)}",
            allowed="a linear model after driftline.CharacterNgrams of one column",
            todo=f"Correct train in the case {release.case}.",
        )
    sizes = tuple(int(size) for size in encoders[0].sizes)
    return np.asarray(model.coef_[0], np.float32), float(model.intercept_[0]), sizes


def _fitted(release: Release) -> Classifier:
    """The classifier with the thresholds that its release's hold-out sets."""
    import numpy as np
    import pandas as pd

    held = pd.read_parquet(release.folder / "scores.parquet", columns=["text", "label", "source"])
    is_good = held["label"].to_numpy() == 0
    is_long = np.array([len(windows(len(" ".join(text.split())) + 2)) > 1 for text in held["text"]])
    weights, intercept, sizes = _linear_parts(release)
    plain = Classifier(weights, intercept, {}, sizes, {})
    scores = plain.score(held["text"].tolist())
    log_odds = np.log(scores) - np.log1p(-scores)
    short, long = (np.sort(log_odds[is_good & side]) for side in (~is_long, is_long))
    margin = max(0.0, _highest(long, LONG_RATE) - _highest(short, LONG_RATE)) if len(long) else 0.0
    scores = 1 / (1 + np.exp(margin * is_long - log_odds))
    good = np.sort(scores[is_good])
    thresholds = {rate: float(np.nextafter(_highest(good, rate), 2)) for rate in RATES}
    counts = Counter(zip(held["source"], held["label"], strict=True))
    caught = {rate: float((scores[~is_good] >= threshold).mean()) for rate, threshold in thresholds.items()}
    about = {
        "release": release.digest,
        "case": release.case,
        "fitted_on": {f"{source}, label {label:.0f}": count for (source, label), count in sorted(counts.items())},
        "caught": {str(rate): round(share, 4) for rate, share in caught.items()},
    }
    return Classifier(weights, intercept, thresholds, sizes, about, margin)


def _highest(ordered: np.ndarray, rate: float) -> float:
    """The highest of sorted values that at most a share `rate` exceeds."""
    return float(ordered[-1 - int(rate * len(ordered))])
