"""Promise: no slice loses what the others gain; what is not shown is undecided, and says how much would show it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from tasks.evaluate.config import AnswerGate, ChampionGate
from tasks.evaluate.criteria import decide, losses_criterion
from tasks.evaluate.language.metrics import clusters_of
from tasks.evaluate.results import Criterion
from tasks.evaluate.slices import PairedLosses, slice_criteria

ROWS = 400  # of each slice
VALUES = {"part": ["a"] * ROWS + ["b"] * ROWS + [None] * 20}


def gate(**changes: Any) -> ChampionGate:
    plain = {"loss": "brier", "min_rows": 100, "slices": {"margin": 0.1, "min_rows": 100}}
    return ChampionGate.model_validate(plain | changes)


def compared(of_a: float, of_b: float, **changes: Any) -> Criterion:
    noise = np.random.default_rng(1).normal(0, 1, ROWS)
    noise -= noise.mean()
    differences = np.concatenate([noise + of_a, noise + of_b, np.full(20, 5.0)])
    (found,) = slice_criteria(gate(**changes), VALUES, PairedLosses(differences, np.zeros(2 * ROWS + 20)))
    return found


@pytest.mark.parametrize(
    ("of_b", "decision", "note"),
    [(-0.3, "promote", "not worse"), (0.6, "reject", "worst of 2: b, worse"), (0.05, "insufficient evidence", "about")],
)
def test_each_slice_has_one_of_three_outcomes(of_b: float, decision: str, note: str) -> None:
    """Although the whole is better each time; a slice that is too small is named, and never counts as fine."""
    found = compared(-0.3, of_b)
    assert decide([found]) == decision
    assert note in found.note
    assert "under 100 rows, so not compared: missing" in found.note
    assert found.name == "champion_brier_by_part"


def test_more_slices_are_rejected_with_more_care() -> None:
    """Bonferroni: a bound that rejects is lower where more slices are compared; one that promotes is the same."""
    random = np.random.default_rng(2)
    losses = PairedLosses(random.normal(0.2, 1, 400), np.zeros(400))
    alone, among = losses.compare(gate(), 1), losses.compare(gate(), 20)
    assert among.low < alone.low
    assert among.high == alone.high


def test_slices_that_can_not_be_compared_do_not_promote() -> None:
    found = compared(0, 0, slices={"margin": 0.1, "min_rows": 1000})
    assert decide([found]) == "insufficient evidence"
    assert found.note == "no slice has 1000 rows"
    assert slice_criteria(gate(slices=None), VALUES, PairedLosses(np.zeros(3), np.zeros(3))) == []


def test_a_minimum_effect_must_be_shown() -> None:
    """As good as the champion is not enough then, and not shown to be good enough is undecided."""
    noise = np.random.default_rng(3).normal(0, 0.5, 800)
    noise -= noise.mean()
    strict = gate(slices=None, min_effect=0.1)
    for mean, decision in ((-0.5, "promote"), (0.0, "reject"), (-0.12, "insufficient evidence")):
        found = losses_criterion(strict, noise + mean, np.zeros(800))
        assert decide([found]) == decision, found
        assert found.required == ">= 0.1 better than the champion"
    with pytest.raises(ValidationError, match="margin or min_effect"):
        gate(margin=0.1, min_effect=0.1)


def test_what_is_not_shown_names_the_examples_needed() -> None:
    """In both directions: to be not worse, and to be worse."""
    random = np.random.default_rng(4)
    noise = random.normal(0, 1, 300)
    noise -= noise.mean()
    for mean, ending in ((-0.05, "would show it"), (0.05, "would show it to be worse")):
        found = losses_criterion(gate(slices=None), noise + mean, np.zeros(300))
        assert decide([found]) == "insufficient evidence"
        assert found.note.startswith("not shown: ")
        assert found.note.endswith(ending)
        needed = int(found.note.rpartition("about ")[2].split()[0].replace(",", ""))
        assert 1500 < needed < 4000


def test_answers_from_one_document_are_one_cluster() -> None:
    """Where the case says so; a question without a document is its own."""
    evidence = ['[["a.md", "x"]]', '[["a.md", "y"], ["b.md", "z"]]', "[]"]
    table = pd.DataFrame({"pair_id": ["1", "2", "3"], "template": ["", "", ""], "evidence": evidence})
    assert clusters_of(table, "document") == ["a.md", "a.md", "3"]
    assert clusters_of(table) == ["1", "2", "3"]
    with pytest.raises(ValidationError, match="allowed: wording, document"):
        AnswerGate.model_validate({"loss": "inexact", "clusters": "day"})
