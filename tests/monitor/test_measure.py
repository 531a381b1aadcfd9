"""What monitoring measures and decides, with Evidently and real models on a world whose concept is known."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from tasks.core.errors import DataError
from tasks.core.files import file_digest
from tasks.monitor.decide import decide
from tasks.monitor.findings import find_findings
from tasks.monitor.signal import read_signal
from tests.monitor.small import REGRESSION, WATCHED, WATCHED_REGRESSION, watch, world


def test_nothing_has_changed_is_ignored_and_the_same_again(release, tmp_path):
    """A month like the others is ignored, with what was looked at; measuring it again gives the same files."""
    signal = watch(world(1500, 3), release, tmp_path)
    decision = decide(signal, WATCHED)

    assert decision.action == "ignore"
    assert (signal.rows, signal.rows_with_outcome, signal.reference_rows) == (1500, 1500, 2000)
    assert set(signal.metrics) == set(signal.reference)
    assert signal.not_computed == ()
    assert any(reason.startswith("auc is 0.") and "allowed 0.050 worse" in reason for reason in decision.reasons)
    assert sum(signal.importance.values()) == pytest.approx(1)
    report = json.loads((signal.folder / "drift.json").read_text())
    assert len(report["metrics"]) == 9  # seven features and the prediction in two ways
    assert "age" in (signal.folder / "drift.html").read_text()
    assert read_signal(signal.folder) == signal

    before = {path.name: file_digest(path) for path in signal.folder.iterdir()}
    assert set(before) == {"drift.html", "drift.json", "signal.json", "decision.json"}
    untouched = (signal.folder / "drift.html").stat().st_mtime_ns
    assert watch(world(1500, 3), release, tmp_path) == signal
    assert (signal.folder / "drift.html").stat().st_mtime_ns == untouched, "found, not measured again"
    (signal.folder / "signal.json").unlink()
    assert decide(watch(world(1500, 3), release, tmp_path), WATCHED) == decision
    assert {path.name: file_digest(path) for path in signal.folder.iterdir()} == before


def test_a_changed_concept_retrains(release, tmp_path):
    """The inputs look the same, what follows from them does not: only outcomes can tell, and they decide."""
    signal = watch(world(1500, 4, age=-1.5), release, tmp_path)
    decision = decide(signal, WATCHED)

    assert decision.action == "retrain"
    assert decision.reasons[0].startswith("auc is 0.")
    assert decision.evidence == signal.evidence
    assert signal.drifted_share == 0
    stored = json.loads((signal.folder / "decision.json").read_text())
    assert (stored["action"], stored["evidence"]) == ("retrain", signal.evidence)


def test_a_bias_retrains(release, tmp_path):
    """More outcomes than predicted, at the same ranking."""
    signal = watch(world(1500, 5, level=1.2), release, tmp_path)
    decision = decide(signal, WATCHED)
    assert signal.metrics["auc"] > signal.reference["auc"] - 0.05
    assert signal.bias < -0.06
    assert decision.action == "retrain"
    assert "too low on average (-0.001 on the hold-out), allowed 0.060 (p below 0.0001" in decision.reasons[0]


def test_harmless_drift_only_alerts_and_few_outcomes_never_retrain(release, tmp_path):
    """Features that say nothing move far: an alert. With few outcomes the alert says that evidence is insufficient."""
    rows = world(1500, 6)
    rows = rows.assign(**{name: rows[name] + 2 for name in ("noise_1", "noise_2", "noise_3", "noise_4")})
    signal = watch(rows, release, tmp_path / "all")
    decision = decide(signal, WATCHED)
    assert decision.action == "alert"
    assert signal.drifted_share == pytest.approx(4 / 7, abs=1e-6)
    assert decision.reasons[0].startswith("The share of drifted columns is 0.571 (noise_1, ")

    rows["outcome_known"] = rows["outcome_known"].where(rows.index < 100, np.nan)
    rows.loc[:99, "outcome_known"] = 1 - rows.loc[:99, "outcome_known"]  # and what has come is all wrong
    signal = watch(rows, release, tmp_path / "few")
    decision = decide(signal, WATCHED)
    assert (signal.rows, signal.rows_with_outcome) == (1500, 100)
    assert decision.action == "alert"
    assert decision.reasons[0].startswith("Insufficient evidence on performance: 100 of 1,500")


def test_too_few_of_everything_is_ignored_and_noted(release, tmp_path):
    """Neither outcomes nor rows enough: nothing is done, nothing is claimed to be fine, and the report still stands."""
    signal = watch(world(50, 7).assign(outcome_known=np.nan), release, tmp_path)
    decision = decide(signal, WATCHED)
    assert decision.action == "ignore"
    assert decision.reasons[0].startswith("Insufficient evidence")
    assert signal.metrics == {}
    assert (signal.bias, signal.drifted_share, signal.prediction_drift, signal.importance_shift) == (None,) * 4
    assert len(signal.not_computed) == 7 + 1 + 7 + 2 + 1 + 1
    reason = "could not be computed: only 50 values to compare, 100 are needed"
    unknown = [finding.sentence for finding in find_findings(signal, WATCHED) if finding.severity == "unknown"]
    assert unknown[0].startswith(f"The share of drifted columns {reason}")
    assert unknown[1].startswith(f"The distance of the predictions' distribution from the hold-out's {reason}")
    assert signal.drift_report.is_file()


def test_one_class_only_is_an_alert(release, tmp_path):
    """With outcomes enough, a watched metric that can't be computed is not silently fine."""
    config = WATCHED.model_copy(update={"retrain": WATCHED.retrain.model_copy(update={"bias": None})})
    signal = watch(world(450, 8).assign(outcome_known=0.0), release, tmp_path, config=config)
    decision = decide(signal, config)
    assert "auc" not in signal.metrics
    assert "auc was not computed: all 450 outcomes are the same." in signal.not_computed
    assert decision.action == "alert"
    assert "auc could not be computed in this window." in decision.reasons


def test_regression_watches_its_own_metric_and_relative_bias(regression, tmp_path):
    """rmse is better when lower, and bias counts as a share of the mean outcome (10)."""
    calm = watch(world(900, 9, "regression"), regression, tmp_path / "calm", REGRESSION, WATCHED_REGRESSION)
    assert decide(calm, WATCHED_REGRESSION).action == "ignore"
    assert set(calm.metrics) == {"mae", "rmse", "r2"}

    raised = world(900, 9, "regression", level=2)
    signal = watch(raised, regression, tmp_path / "raised", REGRESSION, WATCHED_REGRESSION)
    decision = decide(signal, WATCHED_REGRESSION)
    assert signal.bias == pytest.approx(-0.2, abs=0.02)
    assert signal.metrics["rmse"] > signal.reference["rmse"] + 0.3
    assert decision.action == "retrain"
    assert decision.reasons[0].startswith("rmse is 2.")


def test_new_outcomes_replace_the_signal_and_its_old_decision(release, tmp_path):
    """When more has become known, the same as-of is measured again and no old decision stays beside it."""
    rows = world(600, 10)
    early = watch(rows.assign(outcome_known=rows["outcome_known"].where(rows.index < 300)), release, tmp_path)
    decide(early, WATCHED)
    later = watch(rows, release, tmp_path)
    assert later.folder == early.folder
    assert (early.rows_with_outcome, later.rows_with_outcome) == (300, 600)
    assert not (later.folder / "decision.json").exists()


def test_no_predictions_is_refused(release, tmp_path):
    """A window without predictions is an error that says what to run, not an empty report."""
    rows = world(50, 11)
    with pytest.raises(DataError, match="no predictions in this window"):
        watch(rows.assign(event_timestamp=rows["event_timestamp"] - pd.Timedelta(days=90)), release, tmp_path)


def test_a_signal_of_an_earlier_version_is_measured_again(release, tmp_path):
    """Fields that are no more don't stop monitoring after an upgrade."""
    signal = watch(world(600, 12), release, tmp_path)
    path = signal.folder / "signal.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "inputs": "of another version", "prediction_chance": 0.1}))
    assert watch(world(600, 12), release, tmp_path) == signal
