"""A target of three classes under watch: what changes is seen, class by class, and nothing is calibrated anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.monitor.config import Monitor
from tasks.monitor.decide import decide
from tests.monitor.small import CLASSIFICATION, make_release, three, watch

WATCHED = Monitor.model_validate(
    {
        "retrain": {"metric": "accuracy", "worse_by": 0.05, "bias": 0.1},
        "recalibrate": {"bias": 0.02},
        "min_rows": 400,
        "sample": 1000,
    }
)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_release(tmp_path_factory.mktemp("three") / "release", CLASSIFICATION, three)


def test_nothing_has_changed_and_late_outcomes_are_estimated(release: Path, tmp_path: Path) -> None:
    """Half of the outcomes are missing: the scores tell near what they would be; no mix has moved."""
    rows = three(3000, 3)
    late = rows.assign(outcome_known=rows["outcome_known"].where(rows.index % 2 == 0))
    signal = watch(late, release, tmp_path, config=WATCHED)
    assert decide(signal, WATCHED).action == "ignore"
    assert signal.prediction_drift < 0.1
    assert signal.estimated_rows == 1500
    for metric in ("brier", "log_loss", "accuracy"):
        assert signal.estimated[metric] == pytest.approx(signal.metrics[metric], abs=0.05)
        assert signal.expected[metric] == pytest.approx(signal.metrics[metric], abs=0.05)


def test_a_class_that_grows_is_named_and_retrains(release: Path, tmp_path: Path) -> None:
    """More of one class than is predicted: too large a bias retrains, and a smaller one never recalibrates."""
    signal = watch(three(2000, 4, level=1.0), release, tmp_path, config=WATCHED)
    decision = decide(signal, WATCHED)
    assert (decision.action, signal.bias_class) == ("retrain", "high")
    assert signal.bias < -0.1
    assert any(reason.startswith("The share of high is predicted 0.") for reason in decision.reasons)
    lenient = WATCHED.model_copy(update={"retrain": WATCHED.retrain.model_copy(update={"bias": 0.9, "worse_by": 0.9})})
    assert decide(signal, lenient).action != "recalibrate"


def test_harder_rows_only_alert_and_a_class_that_the_model_never_saw_is_wrong(release: Path, tmp_path: Path) -> None:
    """Rows near the borders are foreseen by the scores; a new word among the outcomes is not."""
    harder = three(2000, 5, spread=0.3)
    signal = watch(harder, release, tmp_path / "harder", config=WATCHED)
    assert signal.metrics["accuracy"] < signal.reference["accuracy"] - 0.05
    assert decide(signal, WATCHED).action == "alert"

    rows = three(2000, 6)
    new = np.random.default_rng(0).random(len(rows)) < 0.15
    signal = watch(rows.assign(outcome_known=rows["outcome_known"].mask(new, "higher")), release, tmp_path / "new")
    assert signal.metrics["accuracy"] == pytest.approx(0.85 * signal.reference["accuracy"], abs=0.03)
    assert decide(signal, WATCHED).action == "retrain"
