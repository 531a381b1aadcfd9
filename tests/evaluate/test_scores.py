"""Promise: a verdict follows from its stored scores, bit for bit, also where a champion was compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tasks.core.errors import InputError
from tasks.core.places import Places
from tasks.evaluate.config import Evaluate
from tasks.evaluate.recompute import recompute
from tasks.evaluate.results import Champion, Criterion, EvaluationContext, Verdict
from tasks.evaluate.tabular.gates import evaluate_gates
from tasks.evaluate.verdicts import EVIDENCE, PAIRED
from tasks.train.tabular.fit import train
from tests.train.frames import BY_HASH, CLASSES, TEXTS, boosting, clients, frame_of, origin_of

GATES: dict[str, Any] = {
    "slices": ("sex", "education"),
    "bounds": ({"metric": "auc", "at_least": 0.7}, {"metric": "auc", "at_most": 0.99}),
    "slice_gate": {"metric": "auc", "at_most_worse": 0.15, "min_rows": 150},
    "champion_gate": {"loss": "brier", "margin": 0.002, "min_rows": 300},
    "fairness": {"columns": ("sex",), "resamples": 200, "gates": ({"metric": "equalized_odds", "at_most": 0.5},)},
}
GUARDRAIL = Criterion(name="guardrail input.secrets catches", observed=0.99, required=">= 0.9", passed=True)


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory, state: Path) -> Verdict:
    """Of a candidate beside a smaller champion."""
    frame = frame_of(clients(3000), tmp_path_factory.mktemp("frame"))
    candidate = train(origin_of("scored", state), frame, CLASSES, boosting(TEXTS, BY_HASH))
    small = train(origin_of("scored", state), frame, CLASSES, boosting(TEXTS, BY_HASH, max_iter=5))
    return evaluate_gates(
        candidate,
        CLASSES,
        boosting(TEXTS, BY_HASH),
        config=Evaluate.model_validate(GATES),
        context=EvaluationContext(
            Places.in_folder(state), Champion(small.folder / "model.skops", "c" * 64), (GUARDRAIL,)
        ),
    )


def copy_of(verdict: Verdict, folder: Path) -> Path:
    """Only what a release has: the scores and the evidence."""
    for name in ("scores.parquet", EVIDENCE, PAIRED):
        shutil.copy(verdict.scores.with_name(name), folder)
    return folder


def test_the_same_verdict_follows_from_the_stored_scores(verdict: Verdict, tmp_path: Path) -> None:
    found = recompute(copy_of(verdict, tmp_path), verdict.digest)
    assert found.is_same
    assert found.criteria == verdict.criteria
    assert {"auc", "auc_by_sex", "champion_brier", "dummy_brier", "fairness_equalized_odds"} <= set(found.recomputed)
    assert found.taken == ("leak", "rows_by_class", "alone_as_in_batch", GUARDRAIL.name)
    assert found.recomputed.count("auc") == 2


def change_a_score(folder: Path) -> None:
    table = pd.read_parquet(folder / "scores.parquet")
    predictions = table["prediction"].to_numpy(float).copy()
    predictions[0] = 1 - predictions[0]
    table["prediction"] = predictions
    table.to_parquet(folder / "scores.parquet", index=False)


def change_the_champion(folder: Path) -> None:
    table = pd.read_parquet(folder / PAIRED)
    table["champion 0"] = 1 - table["champion 0"]
    table.to_parquet(folder / PAIRED, index=False)


def change_a_bound(folder: Path) -> None:
    evidence = json.loads((folder / EVIDENCE).read_bytes())
    evidence["evaluate"]["bounds"][0]["at_least"] = 0.1
    (folder / EVIDENCE).write_text(json.dumps(evidence))


def change_a_criterion(folder: Path) -> None:
    evidence = json.loads((folder / EVIDENCE).read_bytes())
    evidence["criteria"][0]["observed"] = 0.99
    (folder / EVIDENCE).write_text(json.dumps(evidence))


@pytest.mark.parametrize("change", [change_a_score, change_the_champion, change_a_bound, change_a_criterion])
def test_changed_evidence_gives_another_verdict(verdict: Verdict, tmp_path: Path, change: Any) -> None:
    """And the criterion that differs is named."""
    change(copy_of(verdict, tmp_path))
    found = recompute(tmp_path, verdict.digest)
    assert not found.is_same
    assert found.different


def test_a_verdict_without_scores_is_an_error(verdict: Verdict, tmp_path: Path) -> None:
    for name in (PAIRED, EVIDENCE, "scores.parquet"):
        folder = tmp_path / name
        folder.mkdir()
        (copy_of(verdict, folder) / name).unlink()
        with pytest.raises(InputError, match="scores were not stored"):
            recompute(folder, verdict.digest)
