"""Promise: groups of people are watched by the case's fairness gates, and what is not shown is never fine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.evaluate.config import Fairness
from tasks.monitor.decide import decide
from tasks.monitor.findings import find_findings
from tasks.monitor.page import write_page
from tests.monitor.small import WATCHED, watch, world


def people(rows: int = 3000) -> pd.DataFrame:
    """A column that the model does not take: the older half, which it chooses more often; and a few others."""
    table = world(rows, 5)
    table["sex"] = np.where(table["age"] > table["age"].median(), "f", "m")
    table.loc[:30, "sex"] = "x"
    return table


def gates(columns: tuple[str, ...], at_most: float) -> Fairness:
    gate: dict[str, Any] = {"metric": "selection_rate", "at_most": at_most}
    return Fairness.model_validate({"columns": columns, "min_rows": 100, "resamples": 300, "gates": [gate]})


@pytest.mark.parametrize(
    ("at_most", "outcome", "severity"),
    [(0.9, "within", "fine"), (0.05, "beyond", "alert"), (None, "not shown", "unknown")],
)
def test_a_gate_on_groups_has_three_outcomes(
    release: Path, tmp_path: Path, at_most: float | None, outcome: str, severity: str
) -> None:
    """With the rates of each group and their intervals; the small group is named, and has rows alone."""
    if at_most is None:  # a bound at the difference itself
        seen = watch(people(), release, tmp_path / "seen", fairness=gates(("sex",), 0.9))
        rates = [group["selection_rate"] for group in seen.groups["sex"].values() if "selection_rate" in group]
        at_most = max(rates) - min(rates)
    signal = watch(people(), release, tmp_path / "judged", fairness=gates(("sex",), at_most))
    (found,) = signal.disparities
    assert found.outcome == outcome, found
    assert signal.groups["sex"]["f"]["selection_rate_low"] < signal.groups["sex"]["f"]["selection_rate"]
    assert set(signal.groups["sex"]["x"]) == {"rows"}
    assert any("nothing is known of sex: x" in sentence for sentence in signal.not_computed)
    findings = [each for each in find_findings(signal, WATCHED) if "groups in selection rate" in each.sentence]
    assert [each.severity for each in findings] == [severity]
    decision = decide(signal, WATCHED)
    if severity != "fine":
        assert decision.action == "alert"
    page = write_page(signal, decision, WATCHED).read_text(encoding="utf-8")
    assert "Groups of people" in page
    assert "unknown" in page


def test_groups_that_can_not_be_compared_are_named(release: Path, tmp_path: Path) -> None:
    """Too few outcomes, or a column that is nowhere: a sentence, no rates."""
    few = watch(people(300), release, tmp_path / "few", fairness=gates(("sex",), 0.1))
    absent = watch(people(), release, tmp_path / "absent", fairness=gates(("religion",), 0.1))
    assert (few.groups, absent.groups) == ({}, {})
    assert any(sentence.startswith("Groups were not compared: 300 rows") for sentence in few.not_computed)
    assert "Groups were not compared: the rows have no column religion." in absent.not_computed
