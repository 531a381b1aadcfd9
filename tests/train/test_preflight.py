from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.core.errors import CaseError, Unavailable
from tasks.data.results import BaseModelFiles
from tasks.train.config import Tuning
from tasks.train.language.model import Example, Precision
from tasks.train.language.preflight import Estimate, TuningPlan, check_fit, estimate, required_memory
from tasks.train.language.resource_estimate import ResourceEstimate, estimate_resources
from tests.language_case import smollm_base

PAIRS = [Example([1] * 100, [1] * 30)] * 40
LONG = [Example([1] * 900, [1] * 100)] * 40


def tuning(**changes: Any) -> Tuning:
    return Tuning.model_validate({"stages": {"sft": {"batch": 8}}, "threads": 1, **changes})


def staged(name: str, room: float, **of: Any) -> Tuning:
    """A tuning whose sft is small, with a stage that needs more."""
    return tuning(memory_gb=room, stages={"sft": {"batch": 1}, name: {"batch": 8, **of}})


def fits(config: Tuning, examples: list[Example] = PAIRS, base: BaseModelFiles | None = None) -> dict[str, Estimate]:
    return check_fit(TuningPlan(base or smollm_base(), config, "fp32", examples), 30)


def memory(config: Tuning, demand: ResourceEstimate, micro: int, precision: Precision = "fp32") -> float:
    return required_memory(TuningPlan(smollm_base(), config, precision, PAIRS), demand, micro)


def test_what_can_not_fit_is_refused_with_what_would() -> None:
    """Before anything is loaded, and the advice given is followed by a fit."""
    with pytest.raises(Unavailable, match="would not fit") as caught:
        fits(tuning(memory_gb=5.0), LONG)
    assert caught.value.todo.startswith("Set train.stages.sft.micro_batch: ")
    smaller = int(caught.value.todo.split("micro_batch: ")[1].split(":")[0])
    advised = {"sft": {"batch": 8, "micro_batch": smaller}}
    assert fits(tuning(memory_gb=5.0, stages=advised), LONG)["sft"].memory_gb <= 5.0
    larger = {"sft": {"batch": 8, "micro_batch": smaller * 2}}
    with pytest.raises(Unavailable):
        fits(tuning(memory_gb=5.0, stages=larger), LONG)


@pytest.mark.parametrize(
    ("name", "of"), [("preference", {}), ("reward", {"answers": 4}), ("reward", {"method": "rloo"})]
)
def test_each_stage_is_held_against_the_memory(name: str, of: dict[str, Any]) -> None:
    """Not only the first one: what would end hours later for want of memory is refused now, with what would fit."""
    roomy = fits(staged(name, 64, **of), LONG)
    assert roomy[name].memory_gb > roomy["sft"].memory_gb
    with pytest.raises(Unavailable, match=f"The stage {name} of this tuning would not fit") as caught:
        fits(staged(name, 7.0, **of), LONG)
    smaller = int(caught.value.todo.split(f"Set train.stages.{name}.micro_batch: ")[1].split(":")[0])
    assert fits(staged(name, 7.0, **of, micro_batch=smaller), LONG)[name].memory_gb <= 7.0


def test_preferences_and_reward_models_take_memory() -> None:
    """Chosen and rejected are both in memory; a trained reward model stays there beside the tuned one."""
    base = smollm_base()
    learnt, preferred = (estimate_resources(name, tuning(), PAIRS, 30) for name in ("sft", "preference"))
    assert memory(tuning(), preferred, 4) > memory(tuning(), learnt, 8)
    paid = [
        fits(staged("reward", 64, reward=by, answers=2))["reward"].memory_gb - base.parameters * 4 * models / 2**30
        for by, models in (("scorers", 0), ("model", 1))
    ]
    assert paid[1] == pytest.approx(paid[0], abs=0.05)


@pytest.mark.skipif(torch.cuda.is_available(), reason="with GPUs each process has one of its own")
def test_each_process_holds_the_base() -> None:
    """Without GPUs all processes share the memory: two need a program and a base more, though each has half a batch."""
    base, (one, two) = smollm_base(), (fits(tuning(processes=n))["sft"].memory_gb for n in (1, 2))
    assert two > one + 1.9 + base.parameters * 4 / 2**30 - 0.02
    smallest = fits(tuning(processes=2, memory_gb=64, stages={"sft": {"batch": 8, "micro_batch": 1}}), LONG)["sft"]
    with pytest.raises(Unavailable, match="would not fit") as caught:
        fits(tuning(processes=2, memory_gb=smallest.memory_gb + 0.1), LONG)
    assert caught.value.todo.startswith("Set train.stages.sft.micro_batch: 1")


def test_answers_that_are_written_take_time() -> None:
    """Reward tuning writes each answer that it learns from; preference does where no rejected ones are given."""
    short = [Example([1] * 100, [1] * 4)] * 40
    assert fits(staged("reward", 64, answers=4))["reward"].tokens > 40 * 130
    config = staged("preference", 64, pairs=40)
    plan = TuningPlan(smollm_base(), config, "fp32", PAIRS)
    demands = [estimate_resources("preference", config, PAIRS, 30, n) for n in (0, 40)]
    wrote, read = (  # a measured speed would differ each time
        estimate(plan, config.stages.preference, demand, speed=1e10, memory=1, available=64) for demand in demands
    )
    assert wrote.tokens == read.tokens + 2 * 40 * 30
    assert wrote.minutes > read.minutes
    assert fits(staged("preference", 64, pairs=40), short)["preference"].tokens < wrote.tokens


def test_a_base_that_never_fits_is_refused(tmp_path: Path) -> None:
    """A base of seventy billion parameters on a small machine: no batch would help."""
    huge: BaseModelFiles = smollm_base().model_copy(update={"parameters": 70_000_000_000})
    with pytest.raises(Unavailable, match="would not fit") as caught:
        fits(tuning(memory_gb=16.0), base=huge)
    assert "take a smaller base" in caught.value.todo


def test_a_budget_that_cuts_a_stage_short_warns() -> None:
    """It is kept, but nobody should be surprised; that of a stage, and that of all, in minutes or money."""
    with pytest.warns(UserWarning, match="sft would take about .* its budget ends it after 0.01"):
        fits(tuning(stages={"sft": {"batch": 8, "steps": 1000, "minutes": 0.01}}))
    with pytest.warns(UserWarning, match="the tuning would take about .* its budget ends it after 0.6"):
        fits(tuning(stages={"sft": {"batch": 8, "steps": 1000}}, budget={"cost": 0.01, "price_per_hour": 1.0}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits(tuning(budget={"minutes": 10_000}))


def test_trying_a_layer_leaves_no_trace() -> None:
    """Random numbers and threads are after it as before, or equal inputs would not give equal weights."""
    random, threads = torch.random.get_rng_state(), torch.get_num_threads()
    fits(tuning(threads=threads + 1))
    assert torch.equal(torch.random.get_rng_state(), random)
    assert torch.get_num_threads() == threads


def test_more_to_do_takes_longer_and_more() -> None:
    """Twice the steps take twice the tokens; a larger micro-batch and eager attention take more memory."""
    one, two = (fits(tuning(stages={"sft": {"batch": 8, "steps": steps}}))["sft"] for steps in (10, 20))
    assert two.tokens == 2 * one.tokens == 2 * 10 * 8 * 130
    demand = estimate_resources("sft", tuning(), PAIRS, 30)
    assert memory(tuning(), demand, 8) > memory(tuning(), demand, 4)
    assert memory(tuning(attention="eager"), demand, 8) > memory(tuning(), demand, 8)
    assert memory(tuning(), demand, 8) > memory(tuning(), demand, 8, "bf16")


def test_where_only_upper_layers_learn_it_takes_less() -> None:
    """Nothing is kept of the layers below, and nothing goes back through them; more than there are is told."""
    demand = estimate_resources("sft", tuning(), PAIRS, 30)
    assert memory(tuning(lora={"layers": 10}), demand, 8) < memory(tuning(), demand, 8)
    assert memory(tuning(lora={"layers": 30}), demand, 8) == memory(tuning(), demand, 8)
    with pytest.raises(CaseError, match="fewer layers than are to be trained") as caught:
        fits(tuning(lora={"layers": 31}))
    assert (caught.value.where, caught.value.allowed) == ("train.lora.layers", "1 to 30")
