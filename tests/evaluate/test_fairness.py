"""Promise: groups are compared with intervals, a small one is never cleared, and a gate has three outcomes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.core.errors import CaseError
from tasks.evaluate.config import Evaluate, Fairness
from tasks.evaluate.fairness import fairness
from tasks.evaluate.results import Criterion
from tasks.evaluate.tabular.gates import check_gates

GATE = {"metric": "selection_rate", "at_most": 0.1}


def clients(rows: int, gap: float, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Clients of two sexes and three towns; the positive decision is rarer for women by `gap`."""
    random = np.random.default_rng(seed)
    table = pd.DataFrame({"sex": random.choice(["female", "male"], rows), "town": random.choice(["a", "b", "c"], rows)})
    y = (random.random(rows) < 0.4).astype(float)
    chosen = random.random(rows) < np.where(table["sex"] == "male", 0.3, 0.3 - gap)
    return table, y, np.where(chosen, 0.8, 0.2)


def config_of(**changes: Any) -> Fairness:
    return Fairness.model_validate({"columns": ["sex"], "crossed": 1, "gates": [GATE], "resamples": 300} | changes)


def gate_on(rows: int, gap: float, **changes: Any) -> Criterion:
    return fairness(config_of(**changes), *clients(rows, gap))[1][0]


def test_equal_groups_pass() -> None:
    criterion = gate_on(6000, 0.0)
    assert criterion.passed
    assert criterion.observed is not None and criterion.observed < 0.1  # noqa: PT018


def test_a_large_difference_is_rejected() -> None:
    criterion = gate_on(6000, 0.25)
    assert not criterion.passed
    assert criterion.conclusive
    assert "male beside female" in criterion.note


def test_few_rows_are_insufficient_evidence() -> None:
    """Neither passed nor rejected, and the note says how many examples would do."""
    criterion = gate_on(300, 0.02, min_rows=30)
    assert not criterion.passed
    assert not criterion.conclusive
    assert "examples would show it" in criterion.note


def test_small_groups_are_named_and_decide_nothing() -> None:
    """A warning, and no rate of expected."""
    table, y, p = clients(2000, 0.0)
    table.loc[:19, "sex"] = "unknown"
    p[:20] = 0.9  # all of them
    tables, criteria = fairness(config_of(), table, y, p)
    assert criteria[0].passed
    assert (criteria[1].name, criteria[1].passed, criteria[1].blocking) == ("fairness_small_groups", False, False)
    assert "sex: unknown (20 rows)" in criteria[1].note
    assert tables["sex"]["unknown"] == {"rows": 20}


def test_only_small_groups_fail_the_gate() -> None:
    """What can't be computed fails."""
    criterion = gate_on(100, 0.0)
    assert (criterion.passed, criterion.observed, criterion.conclusive) == (False, None, True)


def test_crossed_columns_show_what_neither_shows_alone() -> None:
    """Women of one town and men of the other are never chosen: each column by itself is even."""
    random = np.random.default_rng(3)
    sex, town = random.choice(["female", "male"], 4000), random.choice(["a", "b"], 4000)
    table = pd.DataFrame({"sex": sex, "town": town})
    p = np.where((sex == "female") == (town == "a"), 0.2, 0.8)
    y = (random.random(4000) < 0.5).astype(float)
    alone = fairness(config_of(columns=["sex", "town"], crossed=1), table, y, p)[1][0]
    crossed = fairness(config_of(columns=["sex", "town"], crossed=2), table, y, p)[1][0]
    assert alone.passed
    assert not crossed.passed
    assert crossed.conclusive


def test_rates_equal_those_of_fairlearn() -> None:
    """Rates and differences to the last bit, intervals of the bootstrap closely."""
    metrics = pytest.importorskip("fairlearn.metrics")
    table, y, p = clients(1500, 0.1)
    predicted = (p >= 0.5).astype(int)
    rates, _ = fairness(config_of(resamples=2000), table, y, p)
    named = {
        "selection_rate": metrics.selection_rate,
        "true_positive_rate": metrics.true_positive_rate,
        "false_positive_rate": metrics.false_positive_rate,
    }
    expected = metrics.MetricFrame(
        metrics=named,
        y_true=y,
        y_pred=predicted,
        sensitive_features=table["sex"],
        n_boot=100,
        ci_quantiles=[0.025, 0.975],
        random_state=0,
    )
    for name in named:
        for group in ("female", "male"):
            assert rates["sex"][group][name] == expected.by_group[name][group]
            for bound, each in zip(("low", "high"), expected.by_group_ci, strict=True):
                assert rates["sex"][group][f"{name}_{bound}"] == pytest.approx(each[name][group], abs=0.02)
    difference = metrics.equalized_odds_difference(y, predicted, sensitive_features=table["sex"])
    odds = fairness(config_of(gates=[{"metric": "equalized_odds", "at_most": 1}]), table, y, p)[1][0]
    assert f"difference {difference:.3f}" in odds.note


def test_false_alarms_are_rare() -> None:
    """Of 60 tables without a difference and a limit of nearly none, a gate rejects hardly one."""
    gates = [{"metric": "selection_rate", "at_most": 0.001}]
    rejected = 0
    for seed in range(60):
        config = config_of(columns=["town"], gates=gates, resamples=200)
        rejected += fairness(config, *clients(1000, 0.0, seed))[1][0].conclusive
    assert rejected <= 6


def test_a_regression_has_errors_by_group() -> None:
    table, y, _ = clients(3000, 0.0)
    p = y + np.where(table["sex"] == "male", 0.5, 0.0)
    gates = [{"metric": "error", "at_most": 0.2}, {"metric": "calibration_gap", "at_most": 0.6}]
    criteria = fairness(config_of(gates=gates), table, y * 10, p + 9 * y)[1]
    assert [each.passed for each in criteria] == [False, True]


@pytest.mark.parametrize(
    ("task", "slices", "metric", "match"),
    [
        ("classification", (), "selection_rate", "no slice"),
        ("regression", ("sex",), "selection_rate", "no decisions"),
    ],
)
def test_what_does_not_fit_the_case_is_refused(task, slices, metric, match) -> None:
    of_task = {"classification": ("auc", "brier"), "regression": ("mae", "absolute_error")}[task]
    gates = [{"metric": metric, "at_most": 0.1}]
    evaluate = Evaluate.model_validate(
        {
            "slices": slices,
            "bounds": [{"metric": of_task[0], "at_least": 0}],
            "champion_gate": {"loss": of_task[1]},
            "fairness": {"columns": ["sex"], "gates": gates},
        }
    )
    with pytest.raises(CaseError, match=match):
        check_gates(evaluate, task)
