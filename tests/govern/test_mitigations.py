"""Promise: mitigations are compared side by side on the same hold-out, and one that can't be trained says why."""

from __future__ import annotations

from pathlib import Path

from tasks.evaluate.config import Fairness
from tasks.govern.mitigations import compare_mitigations
from tasks.train.config import Mitigation, Train
from tasks.train.tabular.fit import train
from tests.train.frames import BY_HASH, CLASSES, TEXTS, boosting, clients, frame_of, origin_of

TREE = {"family": "sklearn.tree.DecisionTreeClassifier", "parameters": {"max_depth": 4, "min_samples_leaf": 20}}


def test_each_mitigation_stands_beside_the_model_without(tmp_path: Path, state: Path) -> None:
    """Education is no group of two large enough ones here: thresholds are refused in words, the others are measured."""
    config = Train.model_validate({**boosting(TEXTS, BY_HASH).model_dump(), **TREE})
    candidate = train(origin_of("compared", state), frame_of(clients(1200), tmp_path), CLASSES, config)
    fairness = Fairness(columns=("sex",), resamples=200)
    wished = Mitigation(columns=("sex", "education"), metric="selection_rate", at_most=0.05)
    compared = compare_mitigations(candidate, CLASSES, config, fairness=fairness, mitigation=wished)
    found = {each.name: each for each in compared}
    assert list(found) == ["unmitigated", "reweigh", "reductions", "thresholds"]
    assert found["unmitigated"].cost is None
    assert found["thresholds"].problem.startswith("Thresholds by group need two groups that are large enough.")
    for name in ("reweigh", "reductions"):
        each = found[name]
        assert each.cost is not None
        difference = each.metrics["error"] - found["unmitigated"].metrics["error"]
        assert abs(each.cost.value - difference) < 1e-9
        assert each.cost.low <= each.cost.value <= each.cost.high
        assert 0 <= each.differences["selection_rate"].low <= each.differences["selection_rate"].value
