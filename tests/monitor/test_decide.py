"""What is decided on worlds whose change is known, and by what was attempted before."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.core.errors import GateFailed, InsufficientEvidence, Unavailable
from tasks.evaluate.config import ChampionGate
from tasks.monitor.attempts import attempt_to_finish, attempts, record_attempt
from tasks.monitor.config import Monitor
from tasks.monitor.decide import decide
from tasks.monitor.predecessor import compare_predecessor
from tasks.monitor.results import Attempt, Decision, Signal
from tasks.release.results import Release
from tasks.train.classes import DEFAULT_CLASSES
from tests.monitor.small import CLASSIFICATION, COLUMNS, END, REGRESSION, WATCHED, WATCHED_REGRESSION, watch, world


def with_retrain(config: Monitor, **changes: Any) -> Monitor:
    return config.model_copy(update={"retrain": config.retrain.model_copy(update=changes)})


@pytest.fixture(scope="module")
def shifted(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Signal:
    """A signal of a month in which age means the opposite."""
    return watch(world(1500, 4, age=-1.5), release, tmp_path_factory.mktemp("shifted"))


@pytest.fixture(scope="module")
def due(shifted: Signal) -> Decision:
    return decide(shifted, WATCHED)


@pytest.mark.parametrize("rows", [500, 5000, 40_000])
def test_harmless_covariate_shift_never_retrains(release: Path, tmp_path: Path, rows: int) -> None:
    """Ages and incomes move, what follows from them is as ever: seen as drift, found harmless, however many the rows.

    People are more alike, so ranking them is harder: auc falls by more than is allowed, and the scores foresee it.
    """
    signal = watch(world(rows, 21, older=0.5, spread=0.4), release, tmp_path)
    assert signal.metrics["auc"] < signal.reference["auc"] - 0.05
    assert next(column for column in signal.columns if column.column == "age").drifted
    assert decide(signal, WATCHED).action == "alert"


def test_harmless_covariate_shift_of_a_regression_never_retrains(regression: Path, tmp_path: Path) -> None:
    """The same for numbers: errors are as large as ever."""
    signal = watch(world(3000, 22, "regression", older=2.5), regression, tmp_path, REGRESSION, WATCHED_REGRESSION)
    assert decide(signal, WATCHED_REGRESSION).action == "alert"


def test_one_bad_week_in_a_good_month_retrains_nothing(release: Path, tmp_path: Path) -> None:
    """A week in which all is upside down makes the month bad enough to retrain, but only one of its four parts."""
    month = world(4000, 23)
    week = world(4000, 23, age=-3.0, level=-2.0)
    rows = pd.concat([month.head(3000), week.tail(1000)])
    assert decide(watch(rows, release, tmp_path / "whole"), WATCHED).action == "retrain"
    config = with_retrain(WATCHED, needs=2, of=4)
    decision = decide(watch(rows, release, tmp_path / "parts", config=config), config)
    assert decision.action == "alert"
    assert "so in 1 of 4 parts of the window, 2 are needed" in decision.reasons[0]
    spread = world(4000, 24, age=-3.0, level=-2.0)
    assert decide(watch(spread, release, tmp_path / "all", config=config), config).action == "retrain"


def test_a_bad_metric_of_few_rows_may_be_chance(release: Path, tmp_path: Path) -> None:
    """So few outcomes that auc falls by more than is allowed without any change: that is said, and nothing is done."""
    config = WATCHED.model_copy(update={"min_rows": 100})
    low = min(range(100, 130), key=lambda seed: _auc(world(120, seed)))
    signal = watch(world(120, low), release, tmp_path, config=config)
    decision = decide(signal, config)
    assert signal.metrics["auc"] < signal.reference["auc"] - 0.05
    assert decision.action == "ignore"
    assert any(reason.startswith("auc is 0.") and "may be chance" in reason for reason in decision.reasons)


def _auc(rows: pd.DataFrame) -> float:
    from tasks.train.metrics import compute_metrics

    score = 1.5 * rows["age"] + rows["income"]
    return compute_metrics(rows["outcome_known"].to_numpy(), score.to_numpy(), "classification")["auc"]


def test_late_outcomes_are_estimated_and_only_alert(release: Path, tmp_path: Path) -> None:
    """Half of the outcomes are missing; of those the scores tell what they would give away, near the truth."""
    rows = world(6000, 25)
    late = rows.assign(outcome_known=rows["outcome_known"].where(rows.index < 3000))
    signal = watch(late, release, tmp_path / "calm")
    truth = watch(rows, release, tmp_path / "truth").metrics
    assert signal.estimated_rows == 3000
    for metric in ("auc", "brier", "log_loss"):
        assert signal.estimated[metric] == pytest.approx(truth[metric], abs=0.02)
    decision = decide(signal, WATCHED)
    assert decision.action == "ignore"
    assert any("3,000 rows without an outcome" in reason for reason in decision.reasons)

    alike = world(6000, 25, spread=0.1)  # hardly anybody is told from anybody
    signal = watch(alike.assign(outcome_known=np.nan), release, tmp_path / "alike")
    decision = decide(signal, WATCHED)
    assert decision.action == "alert"
    assert any("an estimate: auc is 0." in reason and "(p 0.0" in reason for reason in decision.reasons)


def test_a_small_bias_recalibrates_where_the_case_says_so(release: Path, tmp_path: Path) -> None:
    """Ranking as ever, scores a little low: calibrated anew below what retrains, retrained above it."""
    config = Monitor.model_validate(
        {
            **WATCHED.model_dump(),
            "recalibrate": {"bias": 0.03},
            "retrain": {**WATCHED.retrain.model_dump(), "bias": 0.1},
        }
    )
    rows = world(4000, 26, level=0.4)
    signal = watch(rows, release, tmp_path / "low", config=config)
    assert -0.1 < signal.bias < -0.03
    assert decide(signal, config).action == "recalibrate"
    assert decide(signal, config.model_copy(update={"recalibrate": None})).action != "recalibrate"
    signal = watch(world(4000, 26, level=1.2), release, tmp_path / "lower", config=config)
    assert decide(signal, config).action == "retrain"


def test_the_same_evidence_retrains_once(shifted: Signal, due: Decision) -> None:
    """What came of it, whatever that was, is told instead; a killed attempt is not over."""
    config = with_retrain(WATCHED, cooldown=timedelta(0))
    assert due.action == "retrain"
    for outcome in ("released", "rejected", "failed"):
        again = decide(shifted, config, [Attempt(decision=due, outcome=outcome)])
        assert again.action == "alert"
        assert again.reasons[0].startswith("This evidence was acted on as of 2013-05-01 00:00 (retrain: " + outcome)
    assert decide(shifted, config, [Attempt(decision=due, outcome="begun")]) == due


def test_after_an_attempt_nothing_is_attempted_for_a_while(shifted: Signal, due: Decision) -> None:
    """Other evidence within the cool-down alerts and says until when; after it, or before the attempt, it retrains."""
    for days, action in ((3, "alert"), (7, "retrain"), (-1, "retrain")):
        earlier = due.model_copy(update={"as_of": END - timedelta(days=days), "evidence": "another"})
        decision = decide(shifted, WATCHED, [Attempt(decision=earlier, outcome="rejected")])
        assert decision.action == action, days
        assert ("until 2013-05-05 00:00" in decision.reasons[0]) == (action == "alert")


def test_attempts_are_stored_with_their_outcome(due: Decision) -> None:
    """Released, rejected or failed is written; what only has to wait, or is killed, stays begun and is finished."""
    state = due.folder.parents[3]
    champion = Release.model_construct(digest=due.release, as_of=END - timedelta(days=30))
    ends: dict[Exception, str] = {GateFailed("no"): "rejected", InsufficientEvidence("few"): "undecided"}
    ends |= {ValueError("broken"): "failed", Unavailable("down"): "begun"}
    for error, outcome in {**ends, KeyboardInterrupt(): "begun"}.items():
        with pytest.raises(type(error)), record_attempt(due):
            raise error
        (found,) = attempts(state, due.case)
        assert (found.outcome, found.decision) == (outcome, due)
    assert attempt_to_finish(due.case, END + timedelta(hours=1), champion, state).decision == due
    other = Release.model_construct(digest="ef" * 32, as_of=END - timedelta(days=2))
    assert attempt_to_finish(due.case, END, other, state) is None, "another champion has overtaken it"
    assert attempt_to_finish(due.case, END - timedelta(hours=1), champion, state) is None, "it is not known yet"
    with record_attempt(due) as released:
        released("cd" * 32)
    (found,) = attempts(state, due.case)
    assert (found.outcome, found.release) == ("released", "cd" * 32)
    assert attempt_to_finish(due.case, END, champion, state) == found
    assert attempt_to_finish(due.case, END + timedelta(hours=1), champion, state) is None


def test_a_champion_worse_than_the_one_before_is_rolled_back(
    shifted: Signal, release: Path, due: Decision, tmp_path: Path
) -> None:
    """Only when the one before answers the very same rows better, beyond doubt and by the gate's margin."""
    gate = ChampionGate(loss="brier", margin=0.01, min_rows=500)
    before = Release.model_construct(digest="ef" * 32, folder=release, kind="tabular", columns=COLUMNS)
    rows = world(1500, 4)
    rows.to_parquet(tmp_path / "frame.parquet")
    known = rows.assign(outcome=rows[CLASSIFICATION.column], prediction=0.5)  # a champion that tells nothing
    better, _ = compare_predecessor(known, DEFAULT_CLASSES, before, tmp_path / "frame.parquet", gate)
    assert better.better
    assert better.high < -gate.margin
    decision = decide(shifted.model_copy(update={"predecessor": better}), WATCHED)
    assert (decision.action, decision.to) == ("rollback", before.digest)
    assert decision.reasons[0].startswith("The champion before, efefefefefef, answers the same 1,500 rows better")

    alike, _ = compare_predecessor(known.head(100), DEFAULT_CLASSES, before, tmp_path / "frame.parquet", gate)
    assert not alike.better, "too few rows to say so"
    assert decide(shifted.model_copy(update={"predecessor": alike}), WATCHED).action == "retrain"
    rows.drop(columns="age").to_parquet(tmp_path / "short.parquet")
    none, reason = compare_predecessor(known, DEFAULT_CLASSES, before, tmp_path / "short.parquet", gate)
    assert none is None
    assert "The champion before was not compared" in reason
