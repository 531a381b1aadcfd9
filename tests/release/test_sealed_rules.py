"""Promise: a release seals its rules, and what they need of the training data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.evaluate.results import Verdict
from tasks.guard.config import Guardrails
from tasks.guard.files import GuardSpec, open_guard
from tasks.guard.sealed_files import guard_digest
from tasks.release.results import SealContext
from tasks.release.seal import read_manifest, seal
from tasks.release.tabular import tabular_parts
from tasks.train.results import Candidate
from tests.release.small import LINEAGE, TARGET, make_verdict

pytestmark = pytest.mark.xdist_group("bento")

RANGE: dict[str, Any] = {"check": "range", "columns": ["distance"], "action": "refuse"}


def sealed(candidate: Candidate, verdict: Verdict, state: Path, *rules: dict[str, Any]) -> Path:
    guard = GuardSpec(guardrails=Guardrails.model_validate({"tables": rules}))
    context = SealContext(lineage=LINEAGE, state=state, guard=guard)
    return seal(candidate, verdict, tabular_parts(candidate, verdict, TARGET, context), context)


def test_rules_of_tables_know_the_training_data(candidate: Candidate, tmp_path: Path) -> None:
    verdict = make_verdict(candidate)
    plain = sealed(candidate, verdict, tmp_path)
    guarded = sealed(candidate, verdict, tmp_path, RANGE)
    assert plain.name != guarded.name
    assert guard_digest(read_manifest(plain)["sealed"]["files"]) == ""
    assert guard_digest(read_manifest(guarded)["sealed"]["files"]) != ""
    engine = open_guard(guarded)
    assert engine.check_rows([{"distance": 1000}]).action == "allow"
    assert engine.check_rows([{"distance": 99_999}]).action == "refuse"
