"""Signs of a leak: a column that tells the target alone, and the parts of a sum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.statistics.single_column import find_parts, single_column_scores

ROWS = 400


def holdout(rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(9).random(rows) < 0.25


def leaks(table: dict[str, Any], target: Any, task: str = "classification") -> set[str]:
    frame, values = pd.DataFrame(table), pd.Series(target)
    found = single_column_scores(frame, values, holdout(len(frame)), task)
    assert set(found) <= set(frame)
    return {name for name, score in found.items() if score.is_leak}


@pytest.mark.parametrize("rows", [150, 3000])
def test_copies_of_a_class_are_found(rows: int) -> None:
    """FAULTS 34, leaks: a twin as text or number, and a column that is filled only afterwards, whatever its values."""
    random = np.random.default_rng(1)
    target = (random.random(rows) < 0.3).astype(int)
    table = {
        "twin": np.where(target == 1, "churned", "stayed"),
        "nearly": target + random.normal(0, 0.01, rows),
        "closed_at": np.where(target == 1, random.normal(size=rows), np.nan),
        "strong": 2 * target + random.normal(size=rows),
        "noise": random.normal(size=rows),
        "constant": 1,
        "empty": np.nan,
        "name": [f"person {i}" for i in range(rows)],
    }
    assert leaks(table, target) == {"twin", "nearly", "closed_at"}


def test_copies_of_several_classes_are_found() -> None:
    """Three classes: a code for each is a copy, a column that parts one from the others is none."""
    target = np.random.default_rng(1).choice(["a", "b", "c"], ROWS)
    code = pd.Series(target).map({"a": 7, "b": 1, "c": 4})
    assert leaks({"code": code, "part": target == "a", "noise": np.arange(ROWS) % 7}, target) == {"code"}


def test_copies_of_a_number_are_found() -> None:
    """FAULTS 34, leaks: in another unit, rounded, or of a skewed target whose few large values hide the rest."""
    random = np.random.default_rng(1)
    price = random.lognormal(0, 2, ROWS)
    table = {
        "euros": price * 1.1 + 3,
        "log": np.log(price).round(2),
        "noisy": price * random.lognormal(0, 0.7, ROWS),
        "noise": random.normal(size=ROWS),
    }
    assert leaks(table, price, "regression") == {"euros", "log"}


def test_what_chance_does_on_few_rows_is_no_leak() -> None:
    """Real tables: petals of 30 irises and worst cells of 114 tumours reach .98 on some hold-out, and are no leak."""
    from sklearn.datasets import load_breast_cancer, load_iris

    for data in (load_iris(as_frame=True), load_breast_cancer(as_frame=True)):
        for seed in range(5):
            held = np.random.default_rng(seed).random(len(data.data)) < 0.2
            scores = single_column_scores(data.data, data.target, held, "classification")
            assert max(score.value for score in scores.values()) > 0.95
            assert not [name for name, score in scores.items() if score.is_leak]


@pytest.mark.parametrize("form", ["sum", "product"])
def test_parts_that_give_the_target_are_found(form: str) -> None:
    """FAULTS 34, leaks: the parts of a sum or product, of which none tells the target alone; not with noise on it."""
    random = np.random.default_rng(1)
    table = pd.DataFrame(random.normal(100, 20, (ROWS, 12)), columns=[f"c{i}" for i in range(12)])
    target = table["c3"] + table["c7"] if form == "sum" else table["c3"] * table["c7"]
    table["gaps"] = np.nan
    assert leaks(dict(table), target, "regression") == set()
    found = find_parts(table, target, holdout())
    assert found is not None
    assert (set(found.columns), found.form) == ({"c3", "c7"}, form)
    assert found.r2 > 0.999
    assert find_parts(table, target * random.lognormal(0, 0.05, ROWS), holdout()) is None


def test_a_target_that_cannot_be_scored_has_no_leak() -> None:
    """One class or one value in the rows: no column has a score."""
    assert leaks({"x": np.arange(ROWS)}, np.zeros(ROWS)) == set()
    assert leaks({"x": np.arange(ROWS)}, np.zeros(ROWS), "regression") == set()
    assert find_parts(pd.DataFrame({"x": np.arange(ROWS), "y": 1.0}), pd.Series(np.zeros(ROWS)), holdout()) is None
