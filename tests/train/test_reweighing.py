"""Promise: reweighing lessens the dependence of decisions on a group, and the verdict shows what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.core.errors import CaseError
from tasks.core.places import Places
from tasks.evaluate.config import Evaluate
from tasks.evaluate.report import explain, lines
from tasks.evaluate.results import EvaluationContext
from tasks.evaluate.tabular.gates import evaluate_gates
from tasks.train.tabular.fit import train
from tasks.train.tabular.reweighing import balancing_weights
from tests.train.frames import BY_HASH, CLASSES, TEXTS, VALUES, boosting, clients, frame_of, origin_of

GATES: dict[str, Any] = {
    "slices": ("sex",),
    "bounds": ({"metric": "auc", "at_least": 0.55},),
    "champion_gate": {"loss": "brier"},
    "fairness": {"columns": ("sex",), "resamples": 200, "gates": ({"metric": "selection_rate", "at_most": 0.9},)},
}


def test_weights_make_group_and_outcome_independent() -> None:
    """The weighted share of positives is the same in each group, a missing value's included; rows keep their number."""
    random = np.random.default_rng(0)
    sex = pd.Series(random.choice(["f", "m"], 2000)).mask(random.random(2000) < 0.05)
    outcome = (random.random(2000) < np.where(sex == "f", 0.6, 0.2)).astype(int)
    weights = balancing_weights(pd.DataFrame({"sex": sex}), outcome)
    shares = [np.average(outcome[rows], weights=weights[rows]) for rows in (sex == "f", sex == "m", sex.isna())]
    assert shares == pytest.approx([outcome.mean()] * 3)
    assert weights.sum() == pytest.approx(2000)


def test_the_verdict_shows_both_models(tmp_path: Path, state: Path) -> None:
    """Where one sex has the outcome much more often, the reweighed model differs less between them, at a price."""
    table = clients(3000)
    sex = table["sex"].astype(str)
    more = (np.random.default_rng(1).random(len(table)) < 0.5) & (sex == sex.iloc[0])
    table["target"] = table["target"].where(~more, 1)
    frame = frame_of(table, tmp_path)
    config = boosting(TEXTS, BY_HASH).model_copy(update={"reweigh": ("sex",)})
    candidate = train(origin_of("reweighed", state), frame, CLASSES, config)
    context = EvaluationContext(Places.in_folder(state))
    gates = Evaluate.model_validate(GATES)
    verdict = evaluate_gates(candidate, CLASSES, config, config=gates, context=context)
    fair, plain = (verdict.metrics["mitigation"][side] for side in ("mitigated", "without mitigation"))
    name = "fairness_selection_rate, at most"
    assert fair[name] < plain[name]
    assert fair["brier"] >= plain["brier"]
    assert f"| {name} | {fair[name]:.4g} | {plain[name]:.4g} |" in explain(verdict)
    assert "without mitigation" in lines(verdict)


def test_columns_that_can_not_be_reweighed_are_refused(tmp_path: Path, state: Path) -> None:
    frame = frame_of(clients(600), tmp_path)
    absent = boosting(TEXTS, BY_HASH).model_copy(update={"reweigh": ("religion",)})
    with pytest.raises(CaseError, match="lack a sensitive column"):
        train(origin_of("absent", state), frame, CLASSES, absent)
    family = "sklearn.ensemble.HistGradientBoostingRegressor"
    amounts = boosting(TEXTS, BY_HASH).model_copy(update={"reweigh": ("sex",), "family": family})
    with pytest.raises(CaseError, match="Only decisions between classes"):
        train(origin_of("amounts", state), frame, VALUES, amounts)
