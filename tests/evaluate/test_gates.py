from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.core.errors import CaseError, DataError, DriftlineError
from tasks.core.mlflow import Tracking, mlflow_client
from tasks.core.places import Places
from tasks.evaluate.config import Evaluate
from tasks.evaluate.results import Champion, Criterion, EvaluationContext, Verdict
from tasks.evaluate.tabular.gates import check_gates, evaluate_gates
from tasks.features.results import Frame
from tasks.train.config import Split
from tasks.train.results import Candidate
from tasks.train.tabular.fit import train
from tests.train.frames import BY_HASH, CLASSES, TEXTS, boosting, clients, frame_of, origin_of

GATES: dict[str, Any] = {
    "slices": ("sex", "education"),
    "bounds": ({"metric": "auc", "at_least": 0.7}, {"metric": "calibration_error", "at_most": 0.08}),
    "slice_gate": {"metric": "auc", "at_most_worse": 0.15, "min_rows": 150},
    "champion_gate": {"loss": "brier", "margin": 0.002, "min_rows": 300},
    "ms_per_row": 2000,
}


def gates(**changes: Any) -> Evaluate:
    return Evaluate(**{**GATES, **changes})


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> Frame:
    return frame_of(clients(5000), tmp_path_factory.mktemp("frame"))


@pytest.fixture(scope="module")
def good(frame: Frame, state: Path) -> Candidate:
    return trained(frame, state)


def trained(frame: Frame, state: Path, split: Split = BY_HASH, **parameters: Any) -> Candidate:
    return train(origin_of("judged", state), frame, CLASSES, boosting(TEXTS, split, **parameters))


def altered(frame: Frame, state: Path, folder: Path, change: Any) -> Candidate:
    """A candidate that learnt from an altered table, and is judged on the true one."""
    table = pd.read_parquet(frame.path)
    wrong = frame_of(change(table), folder, f"{change.__name__:f<32}")
    return trained(wrong, state).model_copy(update={"frame": frame.path})


def judged(
    candidate: Candidate, state: Path, config: Evaluate | None = None, champion: Champion | None = None
) -> Verdict:
    return evaluate_gates(
        candidate,
        CLASSES,
        boosting(TEXTS, BY_HASH),
        config=config or gates(),
        context=EvaluationContext(Places.in_folder(state), champion or Champion(None)),
    )


def named(verdict: Verdict, name: str) -> Criterion:
    return next(criterion for criterion in verdict.criteria if criterion.name == name)


def test_a_good_first_candidate_is_promoted(good: Candidate, state: Path) -> None:
    """Every criterion has a name, an observed and a required value; the champion's says that there is none."""
    verdict = judged(good, state)
    assert verdict.decision == "promote"
    assert [criterion.name for criterion in verdict.criteria] == [
        "auc",
        "calibration_error",
        "auc_by_sex",
        "auc_by_education",
        "champion_brier",
        "dummy_brier",
        "plain_brier",
        "leak",
        "rows_by_class",
        "alone_as_in_batch",
        "ms_per_row",
    ]
    assert named(verdict, "champion_brier").note == "no champion yet"
    assert named(verdict, "alone_as_in_batch").observed == 0
    assert set(verdict.metrics["by_slice"]["sex"]) == {"female", "male"}
    assert set(verdict.metrics["by_month"]) == {"2013-01", "2013-02", "2013-03"}
    scores = pd.read_parquet(verdict.scores)
    assert len(scores) == good.holdout_rows == verdict.metrics["overall"]["rows"]
    assert {"example_id", "event_timestamp", "target", "sex", "prediction"} <= set(scores)


def test_the_same_question_gives_the_same_verdict(good: Candidate, state: Path) -> None:
    """Stored, it is given again; judged afresh, all but the timing is equal, and MLflow has one point, not two."""
    first = judged(good, state)
    assert judged(good, state) == first
    shutil.rmtree(first.scores.parent)
    again = judged(good, state)
    assert (again.digest, again.metrics, again.scores) == (first.digest, first.metrics, first.scores)
    client = mlflow_client(Tracking.in_folder(state))
    assert len(client.get_metric_history(good.run_id, "evaluate_auc")) == 1
    data = client.get_run(good.run_id).data
    assert data.tags["driftline.decision"] == "promote"
    assert data.metrics["evaluate_auc"] == first.metrics["overall"]["auc"]
    listed = {item.path for item in client.list_artifacts(good.run_id, "verdict")}
    assert listed == {"verdict/verdict.json", "verdict/verdict.md", "verdict/criteria.json"}
    (first.scores.parent / "verdict.json").write_text("{")
    assert judged(good, state).digest == first.digest


def shuffled(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(target=np.random.default_rng(0).permutation(table["target"]))


def doubled(table: pd.DataFrame) -> pd.DataFrame:
    """Half of those who paid count as defaults: the order stays, the probabilities are far too high."""
    flip = np.random.default_rng(0).random(len(table)) < 0.5
    return table.assign(target=np.where(flip, 1, table["target"]))


def misled(table: pd.DataFrame) -> pd.DataFrame:
    """The outcomes of one group are reversed."""
    return table.assign(target=np.where(table["education"] == "high school", 1 - table["target"], table["target"]))


@pytest.mark.parametrize(
    ("change", "failing"), [(shuffled, "auc"), (doubled, "calibration_error"), (misled, "auc_by_education")]
)
def test_known_bad_candidates_are_rejected(
    frame: Frame, state: Path, tmp_path: Path, good: Candidate, change: Any, failing: str
) -> None:
    """Learnt from noise, over-confident, or useless for one slice: each by the gate that is made for it."""
    bad = altered(frame, state, tmp_path, change)
    verdict = judged(bad, state)
    assert verdict.decision == "reject"
    assert not named(verdict, failing).passed
    assert named(verdict, failing).observed is not None
    against = judged(bad, state, champion=Champion(good.folder / "model.skops", "c" * 64))
    assert against.decision == "reject"
    assert not named(against, "champion_brier").passed


def test_a_challenger_is_held_against_the_champion(frame: Frame, state: Path, good: Candidate) -> None:
    """The same model passes; a weaker one that meets all bounds is not promoted; which champion is in the verdict."""
    model = good.folder / "model.skops"
    same = judged(good, state, champion=Champion(model, "c" * 64))
    assert (same.decision, same.champion) == ("promote", "c" * 64)
    assert named(same, "champion_brier").observed == 0
    weak = trained(frame, state, learning_rate=0.02)
    lenient = gates(bounds=({"metric": "auc", "at_least": 0.7},))
    verdict = judged(weak, state, lenient, champion=Champion(model, "c" * 64))
    assert [criterion.name for criterion in verdict.criteria if not criterion.passed] == ["champion_brier"]
    assert verdict.decision == "insufficient evidence"
    assert named(verdict, "champion_brier").note.endswith("would show it to be worse")
    back = judged(good, state, lenient, champion=Champion(weak.folder / "model.skops", "d" * 64))
    assert back.decision == "promote"


def test_a_champion_that_cannot_answer_fails_closed(frame: Frame, state: Path, good: Candidate, tmp_path: Path) -> None:
    """Damaged, gone, or in need of columns that there no longer are: no promotion, and the note says why."""
    damaged = tmp_path / "damaged.skops"
    damaged.write_bytes(b"PK")
    table = pd.read_parquet(frame.path)
    wider = trained(frame_of(table.assign(extra=1.0), tmp_path, "a" * 32), state).folder / "model.skops"
    for model, note in [
        (damaged, "not a skops archive"),
        (tmp_path / "gone.skops", "no such file"),
        (None, "has no model file"),
        (wider, "without extra"),
    ]:
        verdict = judged(good, state, champion=Champion(model, "c" * 64))
        assert verdict.decision == "insufficient evidence"
        assert note in named(verdict, "champion_brier").note


@pytest.mark.parametrize(
    ("changes", "unknown"),
    [
        ({"champion_gate": {"loss": "brier", "min_rows": 100_000}}, "champion_brier"),
        ({"bounds": ({"metric": "rmse", "at_most": 1},)}, "rmse"),
        ({"slice_gate": {"metric": "auc", "at_most_worse": 0.15, "min_rows": 5000}}, "auc_by_sex"),
        ({"slices": ("town",)}, "auc_by_town"),
    ],
)
def test_what_cannot_be_computed_does_not_promote(
    good: Candidate, state: Path, changes: dict[str, Any], unknown: str
) -> None:
    """Too few examples, a metric of another task, slices too small or not there."""
    champion = Champion(good.folder / "model.skops", "c" * 64)
    verdict = judged(good, state, gates(**changes), champion)
    assert verdict.decision == "insufficient evidence"
    assert (named(verdict, unknown).passed, named(verdict, unknown).observed) == (False, None)


def test_a_slow_candidate_is_rejected(good: Candidate, state: Path) -> None:
    """The time of one row is a gate, but no part of the digest beyond the decision."""
    slow = judged(good, state, gates(ms_per_row=1e-6))
    assert slow.decision == "reject"
    assert [criterion.name for criterion in slow.criteria if not criterion.passed] == ["ms_per_row"]


def test_missing_files_are_reported(good: Candidate, state: Path, tmp_path: Path) -> None:
    """A candidate without its run or without its model file can't be judged."""
    with pytest.raises(DriftlineError, match="run is gone"):
        judged(good.model_copy(update={"run_id": "0" * 32}), state)
    with pytest.raises(DataError, match="no such file"):
        judged(good.model_copy(update={"folder": tmp_path, "definitions_digest": "0" * 64}), state)


@pytest.mark.parametrize(
    ("changes", "task", "message"),
    [
        ({}, "regression", "auc is no metric of a regression"),
        ({"champion_gate": {"loss": "squared_error"}}, "classification", "squared_error is no loss"),
        ({"slice_gate": {"metric": "rmse", "at_most_worse": 1}}, "classification", "rmse is no metric"),
        ({"slices": ()}, "classification", "slice gate without slices"),
        ({"slices": ("town",)}, "classification", "no column town"),
    ],
)
def test_gates_that_do_not_fit_are_refused_by_validate(changes: dict[str, Any], task: str, message: str) -> None:
    """Before anything runs, naming what is allowed."""
    check_gates(gates(), "classification", ["sex", "education"])
    with pytest.raises(CaseError, match=message):
        check_gates(gates(**changes), task, ["sex", "education"])
