"""Promise: reductions and thresholds by group lessen a difference between groups, and are served as measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import equalized_odds_difference
from pydantic import ValidationError

from tasks.core.errors import CaseError, DataError
from tasks.core.files import file_digest
from tasks.core.places import Places
from tasks.evaluate.config import Evaluate
from tasks.evaluate.results import EvaluationContext, Verdict
from tasks.evaluate.tabular.gates import evaluate_gates
from tasks.train.config import Mitigation, Target, Thresholds, Train
from tasks.train.tabular.fit import fit, train
from tasks.train.tabular.mitigation import choose_thresholds
from tasks.train.tabular.model_file import load, predict
from tasks.train.tabular.pipeline import build_pipeline
from tests.train.frames import BY_HASH, CLASSES, TEXTS, VALUES, boosting, clients, frame_of, origin_of, wines

GATES: dict[str, Any] = {
    "slices": ("sex",),
    "bounds": ({"metric": "auc", "at_least": 0.55},),
    "champion_gate": {"loss": "brier"},
    "fairness": {"columns": ("sex",), "resamples": 200, "gates": ({"metric": "equalized_odds", "at_most": 0.9},)},
}
BASIS = "a made-up case in a test"
TREE = {"family": "sklearn.tree.DecisionTreeClassifier", "parameters": {"max_depth": 5, "min_samples_leaf": 20}}
KEYS: dict[str, dict[str, Any]] = {
    "reductions": {"columns": ("sex",), "at_most": 0.02, "iterations": 5},
    "thresholds": {"columns": ("sex",), "at_most": 0.02, "basis": BASIS},
}


def unfair_clients(rows: int = 3000) -> pd.DataFrame:
    """Half of one sex have the outcome whatever else they have, so that a model answers by sex."""
    table = clients(rows)
    sex = table["sex"].astype(str)
    more = (np.random.default_rng(1).random(len(table)) < 0.5) & (sex == sex.iloc[0])
    return table.assign(target=table["target"].where(~more, 1))


def config_of(key: str, **more: Any) -> Train:
    """A small tree, since reductions fit some forty of them."""
    return Train.model_validate({**boosting(TEXTS, BY_HASH).model_dump(), **TREE, key: {**KEYS[key], **more}})


def verdict_of(config: Train, folder: Path, state: Path) -> tuple[Path, Verdict]:
    candidate = train(origin_of("mitigated", state), frame_of(unfair_clients(), folder), CLASSES, config)
    gates = Evaluate.model_validate(GATES)
    context = EvaluationContext(Places.in_folder(state))
    return candidate.folder, evaluate_gates(candidate, CLASSES, config, config=gates, context=context)


@pytest.mark.parametrize("key", KEYS)
def test_the_stored_model_differs_less_between_groups(key: str, tmp_path: Path, state: Path) -> None:
    """By fairlearn's own measure on the hold-out, from the file that is served; the verdict shows what that costs."""
    folder, verdict = verdict_of(config_of(key), tmp_path, state)
    scored = pd.read_parquet(verdict.scores)
    mitigated, plain = (predict(load(folder / f"{name}.skops"), scored) for name in ("model", "unmitigated"))
    assert mitigated == pytest.approx(scored["prediction"].to_numpy())

    def differs(p: np.ndarray) -> float:
        return float(equalized_odds_difference(scored["target"], p >= 0.5, sensitive_features=scored["sex"]))

    assert differs(mitigated) < 0.5 * differs(plain)
    fair, other = (verdict.metrics["mitigation"][side] for side in ("mitigated", "without mitigation"))
    assert fair["fairness_equalized_odds, at most"] < other["fairness_equalized_odds, at most"]
    assert fair["brier"] > other["brier"]
    notes = [each.note for each in verdict.criteria if each.name == "thresholds_by_group"]
    assert notes == ([f"decides by sex: {BASIS}"] if key == "thresholds" else [])


@pytest.mark.parametrize("key", KEYS)
def test_equal_inputs_give_equal_weights(key: str, tmp_path: Path) -> None:
    """Byte for byte, so that a release can be rebuilt; and a row alone has the score that it has in the batch."""
    config, frame = config_of(key), frame_of(unfair_clients(2000), tmp_path)
    folders = [train(origin_of("twice", tmp_path / name), frame, CLASSES, config).folder for name in "ab"]
    assert file_digest(folders[0] / "model.skops") == file_digest(folders[1] / "model.skops")
    model, rows = load(folders[0] / "model.skops"), unfair_clients(40)
    single = [predict(model, rows.iloc[[i]])[0] for i in range(40)]
    assert single == predict(model, rows).tolist()


def test_what_mlflow_loads_decides_by_group_too() -> None:
    """The estimator itself shifts its scores, with the positive class first or last; an unknown group keeps 0.5."""
    rows = unfair_clients(2000)
    for positive in (0, 1):
        target = Target(column="target", task="classification", positive=positive)
        config = config_of("thresholds", at_most=0.05)
        columns = frame_of_columns(rows)
        model = fit(build_pipeline(config, "classification", columns), rows, target, config, columns)
        table = rows[[column.name for column in columns]].head(50)
        both = model.pipeline.predict_proba(table.assign(marriage=table["marriage"].astype(object)))
        assert both[:, positive] == pytest.approx(predict(model, table))
        stranger = table.assign(sex="unknown")
        shifted = model.thresholds.shift(np.array([0.3, 0.5, 0.9]), stranger.head(3)) if model.thresholds else None
        assert shifted == pytest.approx([0.3, 0.5, 0.9])


def frame_of_columns(rows: pd.DataFrame) -> Any:
    from tasks.features.results import Column

    names = [name for name in rows if name not in ("example_id", "target")]
    return tuple(
        Column(name=name, kind="text" if rows[name].dtype == object else "number", origin="request") for name in names
    )


def test_thresholds_are_the_cheapest_that_keep_the_bound() -> None:
    """Found by trying all pairs of thresholds, where two groups have other scores for the same outcome."""
    random = np.random.default_rng(0)
    groups = ["a"] * 600 + ["b"] * 600
    outcome = (random.random(1200) < 0.4).astype(float)
    scores = np.clip(0.35 * outcome + np.repeat([0.25, 0.45], 600) + random.normal(0, 0.12, 1200), 0.01, 0.99)
    config = Mitigation(columns=("g",), metric="true_positive_rate", at_most=0.05)
    found = choose_thresholds(scores, outcome, groups, config)
    first = np.arange(1200) < 600

    def measure(a: float, b: float) -> tuple[float, int]:
        chosen = scores >= np.where(first, a, b)
        rates = [chosen[side & (outcome > 0)].mean() for side in (first, ~first)]
        return abs(rates[0] - rates[1]), int((chosen != (outcome > 0)).sum())

    difference, wrong = measure(found["a"], found["b"])
    assert difference <= 0.05
    grid = np.linspace(0.05, 0.95, 91)
    tried = [measure(a, b) for a in grid for b in grid]
    assert wrong <= min(errors for gap, errors in tried if gap <= 0.05) + 6  # of 1,200, between two points of the grid
    assert wrong < measure(0.5, 0.5)[1]


def test_small_groups_and_impossible_wishes_are_refused(tmp_path: Path, state: Path) -> None:
    config = Mitigation(columns=("g",))
    with pytest.raises(DataError, match="two groups that are large enough"):
        choose_thresholds(np.full(150, 0.5), np.ones(150), ["a"] * 120 + ["b"] * 30, config)
    with pytest.raises(ValidationError, match="exclude one another"):
        Train.model_validate({**config_of("thresholds").model_dump(), "reweigh": ("sex",)})
    with pytest.raises(ValidationError, match="basis"):
        Thresholds.model_validate({"columns": ("sex",)})
    frame = frame_of(clients(600), tmp_path)
    absent = config_of("reductions", columns=("religion",))
    with pytest.raises(CaseError, match="lack a sensitive column"):
        train(origin_of("absent", state), frame, CLASSES, absent)
    family = "sklearn.ensemble.HistGradientBoostingRegressor"
    amounts = config_of("thresholds").model_copy(update={"family": family})
    with pytest.raises(CaseError, match="Only decisions between classes"):
        train(origin_of("amounts", state), frame, VALUES, amounts)
    three = boosting((), BY_HASH).model_copy(update={"reductions": config_of("reductions").reductions})
    drinks = frame_of(wines().assign(sex=1.0), tmp_path)
    with pytest.raises(CaseError, match="only between two"):
        train(origin_of("wines", state), drinks, CLASSES, three)


def test_a_family_without_weights_is_refused(tmp_path: Path, state: Path) -> None:
    columns = ("limit_bal", "age", "bill_amt1")
    table = clients(800)[["example_id", "sex", *columns, "target"]].fillna(0.0)
    table["sex"] = (table["sex"] == "male").astype(float)
    nearest = config_of("reductions").model_copy(
        update={"family": "sklearn.neighbors.KNeighborsClassifier", "parameters": {}, "encoders": ()}
    )
    with pytest.raises(CaseError, match="takes no weights"):
        train(origin_of("nearest", state), frame_of(table, tmp_path), CLASSES, nearest)
