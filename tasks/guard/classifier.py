"""A trained classifier of texts: a linear model over character n-grams, as two small files that numpy reads."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.files import atomic_path
from tasks.core.untrusted import reading_untrusted
from tasks.guard.subject import Subject

if TYPE_CHECKING:
    import numpy as np

WEIGHTS, ABOUT = "weights.npy", "classifier.json"
MAX_BITS = 22
DEFAULT_RATE = 0.005  # of false alarms


@dataclass(frozen=True)
class Classifier:
    """Scores texts: the probability, from 0 to 1, that a text is what the classifier looks for."""

    weights: np.ndarray  # float32, one for each feature
    intercept: float
    thresholds: dict[float, float]  # least score that counts, by the share of benign texts that reach it
    sizes: tuple[int, ...]
    about: dict[str, Any]  # release, training data, what the thresholds were fitted to
    long_margin: float = 0.0  # log-odds that a text of several windows must have more: one of many is high by chance

    def threshold(self, false_alarm_rate: float | None = None) -> float:
        """The threshold for at most this share of false alarms; by default .5 %."""
        rates = [rate for rate in self.thresholds if rate <= (false_alarm_rate or DEFAULT_RATE)]
        return self.thresholds[max(rates)] if rates else max(self.thresholds.values())

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """The score of each text, float64: the highest of its readings, and of the windows of a long one."""
        import numpy as np

        return np.array([self.score_readings(Subject(text).readings) for text in texts])

    def score_readings(self, readings: Sequence[str]) -> float:
        """The highest score of the readings of one text."""
        import numpy as np

        best = max((self._margin(reading) for reading in readings), default=self.intercept)
        return float(1 / (1 + np.exp(-best)))

    def _margin(self, text: str) -> float:
        from tasks.guard.ngrams import window_features

        bits = len(self.weights).bit_length() - 1
        margins = [
            float(self.weights[features].sum()) / math.sqrt(max(1, len(features))) + self.intercept
            for features in window_features(text, self.sizes, bits)
        ]
        return max(margins) - (self.long_margin if len(margins) > 1 else 0.0)


def save_classifier(classifier: Classifier, folder: Path) -> None:
    """Write a classifier as a folder, in place of an earlier one; equal classifiers give equal bytes."""
    import numpy as np

    about = {
        "intercept": classifier.intercept,
        "long_margin": classifier.long_margin,
        "thresholds": {str(rate): threshold for rate, threshold in classifier.thresholds.items()},
        "sizes": list(classifier.sizes),
        "about": classifier.about,
    }
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        np.save(temporary / WEIGHTS, classifier.weights, allow_pickle=False)
        (temporary / ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # releases hold copies, so nothing reads it meanwhile


def load_classifier(folder: Path) -> Classifier:
    """Read a classifier; no code of the folder runs. Raises: DataError."""
    import numpy as np

    allowed = f"{WEIGHTS} and {ABOUT}, as `driftline guard train` writes them"
    with reading_untrusted(
        "A guardrail's classifier can't be read.", folder, allowed=allowed, todo="Train it again: driftline guard train"
    ):
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        weights = np.load(folder / WEIGHTS, allow_pickle=False)
        if weights.ndim != 1 or weights.dtype != np.float32 or len(weights) not in {1 << n for n in range(MAX_BITS)}:
            raise ValueError(f"weights of shape {weights.shape} and type {weights.dtype}")
        intercept, long_margin = float(about["intercept"]), float(about.get("long_margin", 0.0))
        thresholds = {float(rate): float(value) for rate, value in about["thresholds"].items()}
        if not thresholds:
            raise ValueError("no threshold")
        sizes, described = tuple(int(size) for size in about["sizes"]), dict(about["about"])
    return Classifier(weights, intercept, thresholds, sizes, described, long_margin)
