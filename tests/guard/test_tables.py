"""Promise: rows outside the training data are counted, and refused where the case says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tasks.core.errors import CaseError
from tasks.guard.config import Guardrails
from tasks.guard.engine import GuardEngine
from tasks.guard.tables import TABLES, describe

TRAINING = pa.table({"age": [18, 40, 90], "city": ["Rome", "Oslo", "Rome"], "plan": ["a", "b", "b"]})


def engine(folder: Path, *rules: dict[str, Any]) -> GuardEngine:
    guardrails = Guardrails.model_validate({"tables": rules})
    (folder / TABLES).write_text(describe(TRAINING, guardrails.tables))
    return GuardEngine(guardrails, folder)


def test_numbers_outside_the_range_are_counted(tmp_path):
    guard = engine(tmp_path, {"check": "range", "action": "flag"})
    assert guard.check_rows([{"age": 18}, {"age": 90.0}, {"age": None}, {"city": "Bern"}]).fired == ()
    result = guard.check_rows([{"age": 40}, {"age": 91}])
    assert (result.action, result.fired[0].note) == ("flag", "1 of 2 rows; first: age 91, training has 18 to 90")


def test_a_margin_widens_the_range(tmp_path):
    guard = engine(tmp_path, {"check": "range", "action": "refuse", "margin": 0.1, "message": "Check the age."})
    assert guard.check_rows([{"age": 97}]).action == "allow"
    result = guard.check_rows([{"age": 98}])
    assert result.action == "refuse"
    assert result.message.startswith("Check the age. 1 of 1 rows")


def test_unseen_combinations_are_found(tmp_path):
    guard = engine(tmp_path, {"check": "combination", "columns": ["city", "plan"], "action": "refuse"})
    assert guard.check_rows([{"city": "Rome", "plan": "b"}]).action == "allow"
    assert guard.check_rows([{"city": "Oslo", "plan": "a"}]).action == "refuse"


def test_unknown_columns_are_named(tmp_path):
    with pytest.raises(CaseError, match=r"(?s)names a column.*salary"):
        engine(tmp_path, {"check": "combination", "columns": ["salary"], "action": "flag"})
