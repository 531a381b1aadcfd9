from __future__ import annotations

from pathlib import Path

import pytest

from tasks.data.results import Base
from tasks.foundation.errors import Unavailable
from tasks.train.config import Tuning
from tasks.train.language import Example
from tasks.train.preflight import check_fit, estimate, needed
from tests.language import smollm_base

PAIRS = [Example([1] * 100, [1] * 30)] * 40


def tuning(**changes: object) -> Tuning:
    return Tuning.model_validate({"stages": {"sft": {"batch": 8}}, "threads": 1, **changes})


def test_what_can_not_fit_is_refused_with_what_would() -> None:
    """Before anything is loaded, and the advice given is followed by a fit."""
    long = [Example([1] * 900, [1] * 100)] * 40
    with pytest.raises(Unavailable, match="would not fit") as caught:
        check_fit(smollm_base(), tuning(memory_gb=4.0), "fp32", long, 10)
    assert caught.value.todo.startswith("Set train.stages.sft.micro_batch: ")
    smaller = int(caught.value.todo.split("micro_batch: ")[1].split(":")[0])
    advised = {"sft": {"batch": 8, "micro_batch": smaller}}
    assert check_fit(smollm_base(), tuning(memory_gb=4.0, stages=advised), "fp32", long, 10).memory_gb <= 4.0
    larger = {"sft": {"batch": 8, "micro_batch": smaller * 2}}
    with pytest.raises(Unavailable):
        check_fit(smollm_base(), tuning(memory_gb=4.0, stages=larger), "fp32", long, 10)


def test_a_base_that_never_fits_is_told_so(tmp_path: Path) -> None:
    """A base of seventy billion parameters on a small machine: no batch would help."""
    huge: Base = smollm_base().model_copy(update={"parameters": 70_000_000_000})
    with pytest.raises(Unavailable, match="would not fit") as caught:
        check_fit(huge, tuning(memory_gb=16.0), "bf16", PAIRS, 10)
    assert "take a smaller base" in caught.value.todo


def test_a_budget_that_will_cut_the_stage_short_is_told() -> None:
    """It is kept, but nobody should be surprised."""
    short = {"sft": {"batch": 8, "minutes": 0.01}}
    with pytest.warns(UserWarning, match="its budget ends it after 0.01"):
        check_fit(smollm_base(), tuning(stages=short), "fp32", PAIRS, 100)


def test_more_to_do_takes_longer_and_more() -> None:
    """Twice the steps take twice the tokens; a larger micro-batch and eager attention take more memory."""
    one, two = (estimate(smollm_base(), tuning(), "fp32", PAIRS, steps) for steps in (10, 20))
    assert two.tokens == 2 * one.tokens == 2 * 10 * 8 * 130
    base = smollm_base()
    assert needed(base, tuning(), "fp32", PAIRS, 8) > needed(base, tuning(), "fp32", PAIRS, 4)
    assert needed(base, tuning(attention="eager"), "fp32", PAIRS, 8) > needed(base, tuning(), "fp32", PAIRS, 8)
    assert needed(base, tuning(), "fp32", PAIRS, 8) > needed(base, tuning(), "bf16", PAIRS, 8)
