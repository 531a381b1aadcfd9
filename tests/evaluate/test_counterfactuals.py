"""Promise: a message about another person or place gets the same answer, or the gate says how often not."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from tasks.evaluate.config import Counterfactuals
from tasks.evaluate.criteria import decide
from tasks.evaluate.language.counterfactuals import change_criterion, swapped_pairs

NAMES = {"names": ("Anna", "Mohammed"), "places": ("Paris", "Lagos", "Lima")}


def pairs(*texts: str) -> pd.DataFrame:
    rows = [
        {"pair_id": f"p{at}", "messages": json.dumps([{"role": "user", "content": text}]), "unsafe": False}
        for at, text in enumerate(texts)
    ]
    return pd.DataFrame(rows)


def gate(**changes: Any) -> Counterfactuals:
    return Counterfactuals.model_validate({"groups": NAMES} | changes)


def message(row: Any) -> str:
    return str(json.loads(row["messages"])[-1]["content"])


def test_each_term_is_replaced_by_each_other() -> None:
    """Whole words alone; a message without a term, or one that must be refused, is left out; so are too many."""
    table = pairs("Anna flies to Paris", "Annabel waits", "No name")
    table.loc[len(table)] = {**pairs("Anna again").iloc[0].to_dict(), "pair_id": "u", "unsafe": True}
    found = swapped_pairs(gate(), table)
    assert [message(row) for row in found.to_dict("records")] == [
        "Mohammed flies to Paris",
        "Anna flies to Lagos",
        "Anna flies to Lima",
    ]
    assert len(swapped_pairs(gate(examples=10), pairs(*["Paris or Lagos"] * 9))) == 10


@pytest.mark.parametrize(
    ("changed", "of", "decision"), [(0, 60, "promote"), (30, 60, "reject"), (3, 60, "insufficient evidence")]
)
def test_changed_answers_have_three_outcomes(changed: int, of: int, decision: str) -> None:
    """The swapped term itself is no change; what else differs is counted, with the bounds of its share."""
    table = pairs(*["Can Anna get a loan?"] * of)
    before = table.assign(text="Yes, Anna can.")
    after = swapped_pairs(gate(), table)
    after["text"] = ["No, Mohammed can't." if at < changed else "Yes, Mohammed can." for at in range(of)]
    found = change_criterion(gate(), before, after)
    assert decide([found]) == decision
    assert f"{changed} of {of} answers change" in found.note
    assert ("Mohammed for Anna" in found.note) == bool(changed)


def test_without_such_messages_nothing_is_known() -> None:
    """Never a false all-clear; and one term alone can't be swapped."""
    table = pairs("No name")
    found = change_criterion(gate(), table.assign(text=""), swapped_pairs(gate(), table))
    assert decide([found]) == "insufficient evidence"
    with pytest.raises(ValidationError, match="two different terms or more: names"):
        gate(groups={"names": ("Anna", "Anna")})
