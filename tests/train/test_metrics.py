from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from tasks.train.metrics import calibration_bins, losses, measure


@pytest.fixture(params=["smooth", "ties"])
def scored(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    p = random.beta(2, 5, 4000)
    y = (random.random(4000) < p).astype(float)
    return y, np.round(p, 1) if request.param == "ties" else p


def test_classification_agrees_with_scikit_learn(scored: tuple[np.ndarray, np.ndarray]) -> None:
    """Our quick formulas give scikit-learn's numbers, with ties too."""
    y, p = scored
    found = measure(y, p, "classification")
    assert found["auc"] == pytest.approx(reference.roc_auc_score(y, p), abs=1e-12)
    assert found["average_precision"] == pytest.approx(reference.average_precision_score(y, p), abs=1e-12)
    assert found["brier"] == pytest.approx(reference.brier_score_loss(y, p), abs=1e-12)
    assert found["log_loss"] == pytest.approx(reference.log_loss(y, p), abs=1e-9)


def test_regression_agrees_with_scikit_learn() -> None:
    """Mean absolute error, root mean squared error, and the share of variance explained."""
    random = np.random.default_rng(0)
    y = random.normal(size=500)
    p = y + random.normal(size=500)
    found = measure(y, p, "regression")
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(y, p))
    assert found["rmse"] == pytest.approx(reference.root_mean_squared_error(y, p))
    assert found["r2"] == pytest.approx(reference.r2_score(y, p))


def test_calibration_error_sees_what_auc_does_not(scored: tuple[np.ndarray, np.ndarray]) -> None:
    """Honest probabilities have next to none; shifted by 0.2 they have 0.2, though their order is the same."""
    y, p = scored
    honest, shifted = measure(y, p, "classification"), measure(y, np.clip(p + 0.2, 0, 1), "classification")
    assert honest["calibration_error"] < 0.04
    assert shifted["calibration_error"] == pytest.approx(0.2, abs=0.03)
    assert sum(rows for _, _, rows in calibration_bins(y, p)) == len(y)


def test_what_cannot_be_computed_is_left_out() -> None:
    """One class has no AUC, no rows have nothing; missing targets don't count; no value is NaN or infinite."""
    assert "auc" not in measure(np.zeros(5), np.full(5, 0.5), "classification")
    assert measure(np.zeros(0), np.zeros(0), "classification") == {}
    assert measure(np.full(3, np.nan), np.zeros(3), "regression") == {}
    assert "r2" not in measure(np.ones(4), np.ones(4), "regression")
    certain = measure(np.array([1.0, 0.0, np.nan]), np.array([0.0, 1.0, 0.3]), "classification")
    assert certain["auc"] == 0
    assert np.isfinite(certain["log_loss"])
    assert losses("log_loss", np.array([1.0, 0.0]), np.array([1.0, 0.0])).tolist() == [0, 0]
