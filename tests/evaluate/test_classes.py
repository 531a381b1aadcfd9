"""Gates of three classes: what is measured, and a champion that knows other classes than its challenger."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.core.places import Places
from tasks.evaluate.config import Evaluate
from tasks.evaluate.results import Champion, EvaluationContext, Verdict
from tasks.evaluate.tabular.gates import evaluate_gates
from tasks.train.results import Candidate
from tasks.train.tabular.fit import train
from tests.train.frames import BY_HASH, CLASSES, boosting, frame_of, origin_of, wines

GATES = Evaluate.model_validate(
    {
        "bounds": [{"metric": "accuracy", "at_least": 0.8}, {"metric": "macro_f1", "at_least": 0.8}],
        "champion_gate": {"loss": "log_loss", "min_rows": 30},
    }
)


def trained(table: pd.DataFrame, state: Path, folder: Path) -> Candidate:
    return train(origin_of("wine", state), frame_of(table, folder), CLASSES, boosting((), BY_HASH))


def judged(candidate: Candidate, state: Path, config: Evaluate = GATES, champion: Champion | None = None) -> Verdict:
    return evaluate_gates(
        candidate,
        CLASSES,
        boosting((), BY_HASH),
        config=config,
        context=EvaluationContext(Places.in_folder(state), champion or Champion(None)),
    )


@pytest.fixture(scope="module")
def three(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    return trained(wines(), state, tmp_path_factory.mktemp("three"))


def test_three_classes_are_judged(three: Candidate, state: Path) -> None:
    """The verdict names the classes; its scores have the predicted one and each one's probability."""
    verdict = judged(three, state)
    assert (verdict.decision, verdict.classes) == ("promote", ("barbera", "barolo", "grignolino"))
    scores = pd.read_parquet(verdict.scores)
    every = scores[[f"score_{name}" for name in verdict.classes]]
    assert np.allclose(every.sum(axis=1), 1)
    assert (scores["prediction"] == np.array(verdict.classes)[every.to_numpy().argmax(axis=1)]).all()
    assert (scores["prediction"] == scores["target"]).mean() == verdict.metrics["overall"]["accuracy"]


@pytest.mark.parametrize("loss", ["log_loss", "brier"])
def test_who_knows_a_class_more_is_the_better_one(three: Candidate, state: Path, tmp_path: Path, loss: str) -> None:
    """A champion of two classes is held against a challenger of three, and the other way round."""
    table = wines()
    old = trained(table[table["target"] != "barbera"], state, tmp_path)
    config = GATES.model_copy(update={"champion_gate": GATES.champion_gate.model_copy(update={"loss": loss})})
    for mine, rival, better in (
        (three, old, True),
        (old.model_copy(update={"frame": three.frame}), three, False),
    ):
        model = rival.folder / "model.skops"
        verdict = judged(mine, state, config, Champion(model, "c" * 64))
        criterion = next(c for c in verdict.criteria if c.name == f"champion_{loss}")
        assert criterion.passed == better
        assert criterion.note.startswith("not worse" if better else "worse")


def test_a_class_of_the_hold_out_alone_is_wrong(three: Candidate, state: Path, tmp_path: Path) -> None:
    """Seen by nobody in training: all else is measured as ever."""
    scores = pd.read_parquet(judged(three, state).scores)
    frame = pd.read_parquet(three.frame)
    new = frame["example_id"].isin(scores["example_id"].iloc[::4])
    frame.assign(target=frame["target"].where(~new, "nebbiolo")).to_parquet(tmp_path / "frame.parquet")
    moved = three.model_copy(update={"frame": tmp_path / "frame.parquet", "definitions_digest": "0" * 64})
    found = judged(moved, state).metrics["overall"]
    right = (scores["prediction"] == scores["target"]).to_numpy().copy()
    right[::4] = False
    assert found["accuracy"] == pytest.approx(right.mean())
    assert found["log_loss"] > 36 / 4
