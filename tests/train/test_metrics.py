from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from tasks.train.classes import UNKNOWN_CLASS
from tasks.train.metrics import calibration_bins, compute_metrics, losses


@pytest.fixture(params=["smooth", "ties"])
def scored(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    p = random.beta(2, 5, 4000)
    y = (random.random(4000) < p).astype(float)
    return y, np.round(p, 1) if request.param == "ties" else p


def test_classification_agrees_with_scikit_learn(scored: tuple[np.ndarray, np.ndarray]) -> None:
    """Our quick formulas give scikit-learn's numbers, with ties too."""
    y, p = scored
    found = compute_metrics(y, p, "classification")
    assert found["auc"] == pytest.approx(reference.roc_auc_score(y, p), abs=1e-12)
    assert found["average_precision"] == pytest.approx(reference.average_precision_score(y, p), abs=1e-12)
    assert found["brier"] == pytest.approx(reference.brier_score_loss(y, p), abs=1e-12)
    assert found["log_loss"] == pytest.approx(reference.log_loss(y, p), abs=1e-9)
    assert found["accuracy"] == reference.accuracy_score(y, p >= 0.5)
    assert found["macro_f1"] == pytest.approx(reference.f1_score(y, p >= 0.5, average="macro"))


@pytest.fixture
def three() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    p = random.dirichlet([2, 1, 0.5], 2000)
    return (random.random(2000)[:, None] > p.cumsum(axis=1)).sum(axis=1).astype(float), p


def test_three_classes_agree_with_scikit_learn(three: tuple[np.ndarray, np.ndarray]) -> None:
    """Each metric is what scikit-learn says, one class against the rest where it is told of one."""
    y, p = three
    found = compute_metrics(y, p, "classification")
    truth = np.eye(3)[y.astype(int)]
    assert found["auc"] == pytest.approx(reference.roc_auc_score(y, p, multi_class="ovr"), abs=1e-12)
    assert found["average_precision"] == pytest.approx(reference.average_precision_score(truth, p), abs=1e-12)
    assert found["brier"] == pytest.approx(reference.brier_score_loss(y, p), abs=1e-12)
    assert found["log_loss"] == pytest.approx(reference.log_loss(y, p), abs=1e-9)
    assert found["accuracy"] == reference.accuracy_score(y, p.argmax(axis=1))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(y, p.argmax(axis=1), average="macro"))
    assert (
        found["calibration_error"]
        < 0.03
        < compute_metrics(y, p**3 / (p**3).sum(1, keepdims=True), "classification")["calibration_error"]
    )
    for loss in ("brier", "log_loss"):
        assert losses(loss, y, p).mean() == pytest.approx(found[loss])


def test_a_class_that_the_model_does_not_know_is_wrong(three: tuple[np.ndarray, np.ndarray]) -> None:
    """Of two classes and of three: one that got no chance, at the price of a sure and wrong answer."""
    y, p = three
    y, wide = np.append(y, UNKNOWN_CLASS), np.vstack([p, [0.2, 0.3, 0.5]])
    assert losses("log_loss", y, wide)[-1] > 36
    assert losses("brier", y, wide)[-1] == pytest.approx(1 + 0.04 + 0.09 + 0.25)
    assert losses("brier", np.array([UNKNOWN_CLASS]), np.array([0.3])) == 1
    found, before = compute_metrics(y, wide, "classification"), compute_metrics(y[:-1], p, "classification")
    assert found["accuracy"] == pytest.approx(before["accuracy"] * 2000 / 2001)
    assert found["macro_f1"] == pytest.approx(before["macro_f1"] * 3 / 4, abs=0.001)
    two = compute_metrics(np.array([1, 0, UNKNOWN_CLASS]), np.array([0.9, 0.1, 0.9]), "classification")
    assert two["accuracy"] == pytest.approx(2 / 3)


def test_regression_agrees_with_scikit_learn() -> None:
    """Mean absolute error, root mean squared error, and the share of variance explained."""
    random = np.random.default_rng(0)
    y = random.normal(size=500)
    p = y + random.normal(size=500)
    found = compute_metrics(y, p, "regression")
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(y, p))
    assert found["rmse"] == pytest.approx(reference.root_mean_squared_error(y, p))
    assert found["r2"] == pytest.approx(reference.r2_score(y, p))


def test_calibration_error_sees_what_auc_does_not(scored: tuple[np.ndarray, np.ndarray]) -> None:
    """Honest probabilities have next to none; shifted by 0.2 they have 0.2, though their order is the same."""
    y, p = scored
    honest, shifted = (
        compute_metrics(y, p, "classification"),
        compute_metrics(y, np.clip(p + 0.2, 0, 1), "classification"),
    )
    assert honest["calibration_error"] < 0.04
    assert shifted["calibration_error"] == pytest.approx(0.2, abs=0.03)
    assert sum(rows for _, _, rows in calibration_bins(y, p)) == len(y)


def test_what_cannot_be_computed_is_left_out() -> None:
    """One class has no AUC, no rows have nothing; missing targets don't count; no value is NaN or infinite."""
    assert "auc" not in compute_metrics(np.zeros(5), np.full(5, 0.5), "classification")
    assert compute_metrics(np.zeros(0), np.zeros(0), "classification") == {}
    assert compute_metrics(np.full(3, np.nan), np.zeros(3), "regression") == {}
    assert "r2" not in compute_metrics(np.ones(4), np.ones(4), "regression")
    certain = compute_metrics(np.array([1.0, 0.0, np.nan]), np.array([0.0, 1.0, 0.3]), "classification")
    assert certain["auc"] == 0
    assert np.isfinite(certain["log_loss"])
    assert losses("log_loss", np.array([1.0, 0.0]), np.array([1.0, 0.0])).tolist() == [0, 0]
