"""Leaks and useless models: known-bad candidates that a gate stops, and a person's waiver."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.core.errors import CaseError
from tasks.core.mlflow import Tracking, mlflow_client
from tasks.core.places import Places
from tasks.evaluate.config import Evaluate
from tasks.evaluate.report import explain, lines
from tasks.evaluate.results import Criterion, EvaluationContext, Verdict
from tasks.evaluate.tabular.gates import evaluate_gates
from tasks.evaluate.tabular.leaks import leak_criteria
from tasks.evaluate.tabular.rows import EvaluationRows
from tasks.features.results import Column, Frame
from tasks.release.results import SealContext
from tasks.release.seal import read_manifest, seal
from tasks.release.tabular import tabular_parts
from tasks.train.config import Encoder, Target, Train
from tasks.train.results import Candidate
from tasks.train.tabular.fit import train
from tests.release.small import LINEAGE
from tests.train.frames import BY_HASH, CLASSES, VALUES, boosting, frame_of, origin_of

ROWS = 900
CLASS_GATES: dict[str, Any] = {
    "bounds": ({"metric": "auc", "at_least": 0.4},),
    "champion_gate": {"loss": "brier", "min_rows": 30},
}
NUMBER_GATES: dict[str, Any] = {
    "bounds": ({"metric": "r2", "at_least": -9},),
    "champion_gate": {"loss": "absolute_error", "min_rows": 30},
}
REGRESSION = Train(
    family="sklearn.ensemble.HistGradientBoostingRegressor", parameters={"max_iter": 30}, split=BY_HASH, threads=1
)


def customers() -> pd.DataFrame:
    """Who is older and spends more leaves more often; the town matters for nothing."""
    random = np.random.default_rng(0)
    age, spend = random.integers(18, 80, ROWS), random.lognormal(4, 0.5, ROWS)
    left = random.random(ROWS) < 1 / (1 + np.exp(-(0.06 * (age - 50) + np.log(spend) - 4)))
    town = random.choice(["Ely", "Bath", "Hull"], ROWS)
    return pd.DataFrame({"age": age * 1.0, "spend": spend, "town": town, "target": left.astype(int)})


def judged(table: pd.DataFrame, state: Path, folder: Path, **gates: Any) -> tuple[Verdict, Candidate]:
    texts = tuple(name for name in table if table[name].dtype == object and name != "target")
    target, config, rules = CLASSES, boosting(texts, BY_HASH), CLASS_GATES
    if table["target"].nunique() > 10:
        encoders = (Encoder(columns=texts, family="sklearn.preprocessing.OrdinalEncoder"),)
        target, config, rules = VALUES, REGRESSION.model_copy(update={"encoders": encoders}), NUMBER_GATES
    return evaluated(framed(table, folder), target, config, Evaluate(**{**rules, **gates}), state)


def framed(table: pd.DataFrame, folder: Path) -> Frame:
    return frame_of(table, folder, sha256(table.to_csv().encode()).hexdigest()[:32])


def evaluated(frame: Frame, target: Target, config: Train, gates: Evaluate, state: Path) -> tuple[Verdict, Candidate]:
    candidate = train(origin_of("leaks", state), frame, target, config)
    return evaluate_gates(
        candidate, target, config, config=gates, context=EvaluationContext(Places.in_folder(state))
    ), candidate


def failed(verdict: Verdict) -> list[str]:
    return [criterion.name for criterion in verdict.criteria if not criterion.passed and criterion.blocking]


def named(verdict: Verdict, name: str) -> Criterion:
    return next(criterion for criterion in verdict.criteria if criterion.name == name)


def twin(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(status=np.where(table["target"] == 1, "closed", "open"))


def afterwards(table: pd.DataFrame) -> pd.DataFrame:
    """What was paid back is entered when a customer has left, and for a few by mistake."""
    random = np.random.default_rng(1)
    paid = (table["target"] == 1) & (random.random(ROWS) < 0.999)
    return table.assign(paid_back=np.where(paid, random.lognormal(3, 1, ROWS), np.nan))


def parts(table: pd.DataFrame) -> pd.DataFrame:
    random = np.random.default_rng(1)
    goods, fee = random.lognormal(4, 1, ROWS), random.lognormal(4, 1, ROWS)
    return table.assign(goods=goods, fee=fee, target=goods + fee)


@pytest.mark.parametrize(
    ("leak", "name"),
    [(twin, "leak: status"), (afterwards, "leak: paid_back"), (parts, "leak: fee and goods")],
)
def test_a_leak_stops_the_candidate(leak: Any, name: str, state: Path, tmp_path: Path) -> None:
    """FAULTS 34, leaks: a twin of the target, a column known only afterwards, and the parts of a sum are named."""
    verdict, _ = judged(leak(customers()), state, tmp_path)
    assert verdict.decision == "reject"
    assert [" and ".join(sorted(each.removeprefix("leak: ").split(" and "))) for each in failed(verdict)] == [
        name.removeprefix("leak: ")
    ]
    found = named(verdict, failed(verdict)[0])
    assert found.observed is not None
    assert found.observed > 0.98
    assert "waive it with a reason under evaluate.waive" in explain(verdict)


def test_a_model_that_is_too_good_on_one_column(state: Path, tmp_path: Path) -> None:
    """FAULTS 34, leaks: a column that just misses .98 alone, and on which a suspiciously good model rests."""
    table = customers()
    random = np.random.default_rng(2)
    target = random.integers(0, 2, ROWS)
    score = target + random.normal(0, 0.33, ROWS)
    verdict, _ = judged(table.assign(target=target, score=score), state, tmp_path)
    assert failed(verdict) == ["leak: score"]
    assert "rests on score alone" in named(verdict, "leak: score").note


@pytest.mark.parametrize(("column", "decision"), [("review", True), ("code", False)])
def test_a_model_may_rest_on_sentences_alone(column: str, decision: bool) -> None:
    """A model of reviews is made to rest on their text; one that rests on a code of many values still is a leak."""
    table = customers()
    table["review"] = [f"order {i}, the {'best' if y else 'worst'} of all" for i, y in enumerate(table["target"])]
    table["code"] = [f"{i:05}" for i in range(ROWS)]
    columns = tuple(Column(name=name, kind="text", origin="request") for name in ("town", "review", "code"))
    rows = EvaluationRows(
        training=table[:700], holdout=table[700:], columns=columns, target=CLASSES, classes=(0, 1), summary=""
    )
    criteria = leak_criteria(rows, {"auc": 0.99}, {"town": 0.0, column: 1.0}, {})
    assert all(criterion.passed for criterion in criteria) is decision


def test_an_honest_table_has_no_leak(state: Path, tmp_path: Path) -> None:
    """The criterion passes, and names the strongest column; the data line says how many rows are on which side."""
    verdict, _ = judged(customers(), state, tmp_path)
    assert verdict.decision == "promote"
    assert named(verdict, "leak").note.startswith("the strongest is age: alone it gives auc ")
    assert verdict.data.startswith("trained on ")
    assert verdict.data in lines(verdict)


def waiver(reason: str = "known before", until: str = "2100-01-01") -> dict[str, str]:
    return {"reason": reason, "by": "Ann Lee", "until": until}


def test_a_person_waives_a_leak_with_a_reason(state: Path, tmp_path: Path) -> None:
    """FAULTS 34, leaks: the waiver with its reason is in the verdict and in the sealed manifest."""
    reason = "known when the order is placed: the warehouse confirmed it"
    verdict, candidate = judged(twin(customers()), state, tmp_path, waive={"status": waiver(reason)})
    text = f"{reason} (Ann Lee, until 2100-01-01)"
    assert verdict.decision == "promote"
    assert (named(verdict, "leak: status").waiver, named(verdict, "leak: status").passed) == (text, True)
    assert f"waived: {text}" in lines(verdict)
    folder = seal(
        candidate, verdict, tabular_parts(candidate, verdict, CLASSES), SealContext(lineage=LINEAGE, state=state)
    )
    criteria = {each["name"]: each for each in read_manifest(folder)["sealed"]["verdict"]["criteria"]}
    assert criteria["leak: status"]["waiver"] == text
    assert "waiver" not in criteria["auc"]
    with pytest.raises(CaseError, match="no feature or gate sttus to waive"):
        judged(twin(customers()), state, tmp_path, waive={"sttus": waiver(reason)})


def test_all_parts_of_a_sum_must_be_waived(state: Path, tmp_path: Path) -> None:
    """A reason for one of two columns is not one for both."""
    some, _ = judged(parts(customers()), state, tmp_path, waive={"goods": waiver()})
    both, _ = judged(parts(customers()), state, tmp_path, waive={"goods": waiver(), "fee": waiver()})
    assert [some.decision, both.decision] == ["reject", "promote"]


def test_no_better_than_chance_is_rejected(state: Path, tmp_path: Path) -> None:
    """A model of noise meets lenient bounds, and is no better than the dummy; the baselines stand beside it."""
    table = customers()
    noise = np.random.default_rng(3).permutation(table["target"])
    verdict, candidate = judged(table.assign(target=noise, more=1.0), state, tmp_path)
    assert verdict.decision == "reject"
    assert failed(verdict) == ["dummy_brier"]
    baselines = verdict.metrics["baselines"]
    assert baselines["dummy"]["auc"] == 0.5
    assert baselines["dummy"]["brier"] < verdict.metrics["overall"]["brier"]
    assert baselines["dummy"]["brier_difference"] == pytest.approx(
        verdict.metrics["overall"]["brier"] - baselines["dummy"]["brier"]
    )
    logged = mlflow_client(Tracking.in_folder(state)).get_run(candidate.run_id).data.metrics
    assert logged["baseline.dummy.auc"] == 0.5
    assert logged["baseline.plain.auc"] == pytest.approx(baselines["plain"]["auc"])
    assert "| metric | candidate | plain boosting | dummy |" in explain(verdict)


def test_worse_than_plain_boosting_is_a_warning(state: Path, tmp_path: Path) -> None:
    """A shallow model of a few trees: better than nothing, shown to be worse than plain boosting, and promoted."""
    table = customers().drop(columns="town")
    either = (table["age"] > 50) ^ (table["spend"] > 55) ^ (np.random.default_rng(6).random(ROWS) < 0.05)
    weak = boosting((), BY_HASH, max_iter=2)
    verdict, _ = evaluated(
        framed(table.assign(target=either.astype(int)), tmp_path), CLASSES, weak, Evaluate(**CLASS_GATES), state
    )
    assert verdict.decision == "promote"
    assert not named(verdict, "plain_brier").passed
    assert "warn plain_brier" in " ".join(lines(verdict).split())


def test_too_few_rows_to_beat_the_dummy(state: Path, tmp_path: Path) -> None:
    """Better, but not shown to be: insufficient evidence, which names how many examples would show it."""
    table = customers().head(120).drop(columns="town")
    weak = boosting((), BY_HASH, max_iter=4)
    verdict, _ = evaluated(framed(table, tmp_path), CLASSES, weak, Evaluate(**CLASS_GATES), state)
    note = named(verdict, "dummy_brier").note
    assert verdict.decision == "insufficient evidence"
    assert re.search(r"about \d+ examples would show it", note)


def test_a_rare_class_is_named(state: Path, tmp_path: Path) -> None:
    """FAULTS 29, rare classes: a hold-out with too few rows of a class says so, and by how many; a warning."""
    table = customers().drop(columns="town")
    rare = np.random.default_rng(4).choice(ROWS, 24, replace=False)
    table["target"] = table["target"].map({0: "stays", 1: "leaves"})
    table.loc[rare, "target"] = "dies"
    verdict, _ = judged(table, state, tmp_path)
    found = named(verdict, "rows_by_class")
    assert (found.passed, found.blocking) == (False, False)
    assert found.note.startswith("too few of dies (")


def test_errors_are_in_the_unit_of_the_target(state: Path, tmp_path: Path) -> None:
    """FAULTS 43, skewed targets: the target's usual size stands beside its errors; rows without one are counted."""
    random = np.random.default_rng(5)
    table = customers().drop(columns="town")
    skewed = table.assign(target=np.exp(table["age"] / 20 + random.normal(0, 0.5, ROWS)))
    frame = framed(skewed, tmp_path).model_copy(update={"without_target": 300})
    verdict, _ = evaluated(frame, VALUES, REGRESSION, Evaluate(**NUMBER_GATES), state)
    assert "mae and rmse are in the unit of target, whose median is " in verdict.data
    assert "left out 300 rows (25.0%) without a value of target" in verdict.data, "FAULTS 33, rows without a target"
