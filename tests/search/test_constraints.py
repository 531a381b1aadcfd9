"""What a case demands of its models holds for every trial: weights, calibration, differences between groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from optuna.trial import FixedTrial

from tasks.core.errors import CaseError
from tasks.evaluate.config import Fairness
from tasks.features.results import Frame
from tasks.search.config import Search
from tasks.search.search import search
from tasks.search.tabular.problem import TabularProblem
from tasks.train.config import Target, Train
from tests.search.tables import BY_TIME, FAMILY, problem, small_frame, write_frame

FAIRNESS = Fairness(columns=("sex",), min_rows=30, gates=[{"metric": "selection_rate", "at_most": 0.1}])


def unfair_frame(folder) -> Frame:
    """Rows whose outcome hangs on `second`, which hangs on a sensitive column that is no feature."""
    table = pd.read_parquet(small_frame(folder, 1200).path)
    random = np.random.default_rng(1)
    sex = random.choice(["f", "m"], len(table))
    table["second"] += 2.0 * (sex == "m")
    table["late"] = (table["first"] + table["second"] + random.normal(size=len(table)) > 1).astype(int)
    frame = write_frame(table, folder)
    table.assign(sex=sex).to_parquet(frame.path, index=False)
    return frame


def constrained(frame: Frame, *, reweigh: tuple[str, ...] = (), fairness: Fairness | None = None) -> TabularProblem:
    encoder = {"columns": ["kind"], "family": "sklearn.preprocessing.OneHotEncoder"}
    train = Train(family=FAMILY, encoders=[encoder], split=BY_TIME, reweigh=reweigh)
    settings, target = Search(families=("linear", "boosting")), Target(column="late", task="classification")
    return TabularProblem("small", frame, target, train, settings, "auc", None, fairness=fairness)


def test_a_difference_between_groups_refuses_a_trial(tmp_path):
    """With the metric, the groups and the bound; nothing is adopted, and no ensemble hides it."""
    case = constrained(unfair_frame(tmp_path), fairness=FAIRNESS)
    result = search(case, case.settings, "5-trials", state=tmp_path, observe=lambda _: None)
    tried = [each for each in result.trials if each.number]
    assert tried
    assert {each.state for each in tried} == {"refused"}
    assert all("fairness_selection_rate too large: by sex: m beside f" in each.reason for each in tried)
    assert result.chosen == 0


def test_a_mitigation_that_trials_lack_is_refused(tmp_path):
    """Rather than left out of each trial without a word."""
    case = constrained(unfair_frame(tmp_path))
    reductions = {"columns": ["sex"], "metric": "selection_rate", "at_most": 0.1}
    train = Train.model_validate({**case.train.model_dump(), "reductions": reductions})
    with pytest.raises(CaseError, match="mitigation") as caught:
        _ = replace(case, train=train).table
    assert caught.value.where == "train.reductions"


def test_trials_are_weighed_as_the_case_is(tmp_path):
    """A model of reweighed rows treats groups more alike, so its losses are not those of the plain one."""
    frame = unfair_frame(tmp_path)
    plain, weighed = (constrained(frame, reweigh=each) for each in ((), ("sex",)))
    one, other = (each.measure(each.start(), 1) for each in (plain, weighed))
    _, test = weighed.table.folds[1]
    rates = [pd.Series(each.predictions >= 0.5).groupby(test["sex"].to_numpy()).mean() for each in (one, other)]
    assert rates[1]["m"] - rates[1]["f"] < rates[0]["m"] - rates[0]["f"] - 0.02


def test_a_metric_of_probabilities_tries_calibrations(tmp_path):
    """And what it proposes can be fitted; the AUC, which they do not change, is not searched by them."""
    frame = small_frame(tmp_path, 1500)
    chosen = {"family": "linear", "linear_categories": "one-hot", "interactions": False, "strength": 1.0}
    train = Train(family=FAMILY, split=BY_TIME)
    target = Target(column="late", task="classification")
    case = TabularProblem("small", frame, target, train, Search(), "brier", None)
    configuration = case.suggest(FixedTrial({**chosen, "calibration": "isotonic"}))
    assert configuration["calibration"] == "isotonic"
    assert case.measure(configuration, 0).losses.mean() < 0.25
    assert "calibration" not in problem(frame).suggest(FixedTrial(chosen))


def test_rare_classes_may_be_weighed(tmp_path):
    """Below a fifth of the rows, weights of the classes are a choice; of equal classes they are none."""
    table = pd.read_parquet(small_frame(tmp_path, 1500).path)
    table["late"] = (table["first"] > 1.3).astype(int)
    chosen = {"family": "linear", "linear_categories": "one-hot", "interactions": False, "strength": 1.0}
    configuration = problem(write_frame(table, tmp_path)).suggest(FixedTrial({**chosen, "class_weight": "balanced"}))
    assert configuration["parameters"]["class_weight"] == "balanced"


@pytest.mark.parametrize("calibration", ["sigmoid", None])
def test_a_calibration_is_estimated_as_six_fits(tmp_path, calibration):
    """So a small budget is kept."""
    case = problem(small_frame(tmp_path))
    section = {"family": FAMILY, **({"calibration": calibration} if calibration else {})}
    plain = case.estimate({"family": FAMILY}, 0).seconds
    assert (case.estimate(section, 0).seconds > plain) == (calibration is not None)
