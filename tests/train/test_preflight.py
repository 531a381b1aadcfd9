from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.core.errors import CaseError, Unavailable
from tasks.data.results import BaseModelFiles
from tasks.train.config import Tuning
from tasks.train.language.model import Example
from tasks.train.language.preflight import Estimate, check_fit, estimate, required_memory
from tasks.train.language.resource_estimate import estimate_resources
from tests.language_case import smollm_base

PAIRS = [Example([1] * 100, [1] * 30)] * 40
LONG = [Example([1] * 900, [1] * 100)] * 40


def tuning(**changes: Any) -> Tuning:
    return Tuning.model_validate({"stages": {"sft": {"batch": 8}}, "threads": 1, **changes})


def staged(name: str, room: float, **of: Any) -> Tuning:
    """A tuning whose sft is small, with a stage that needs more."""
    return tuning(memory_gb=room, stages={"sft": {"batch": 1}, name: {"batch": 8, **of}})


def fits(
    given: Tuning, examples: list[Example] = PAIRS, base: BaseModelFiles | None = None, **more: Any
) -> dict[str, Estimate]:
    return check_fit(base or smollm_base(), given, "fp32", examples, 30, **more)


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


def test_a_preference_stage_reads_two_answers_and_a_reward_model_is_a_second_model() -> None:
    """Chosen and rejected are both in memory; a trained reward model stays there beside the tuned one."""
    base = smollm_base()
    learnt, preferred = (estimate_resources(name, tuning(), PAIRS, 30) for name in ("sft", "preference"))
    assert required_memory(base, tuning(), "fp32", preferred, 4) > required_memory(base, tuning(), "fp32", learnt, 8)
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
    asked, base, speed = staged("preference", 64, pairs=40), smollm_base(), 1e10  # a measured one is another each time
    wrote, given = (
        estimate(
            base,
            asked,
            PAIRS,
            asked.stages.preference,
            estimate_resources("preference", asked, PAIRS, 30, n),
            speed,
            1,
            64,
        )
        for n in (0, 40)
    )
    assert wrote.tokens == given.tokens + 2 * 40 * 30
    assert wrote.minutes > given.minutes
    assert fits(staged("preference", 64, pairs=40), short)["preference"].tokens < wrote.tokens


def test_a_base_that_never_fits_is_told_so(tmp_path: Path) -> None:
    """A base of seventy billion parameters on a small machine: no batch would help."""
    huge: BaseModelFiles = smollm_base().model_copy(update={"parameters": 70_000_000_000})
    with pytest.raises(Unavailable, match="would not fit") as caught:
        fits(tuning(memory_gb=16.0), base=huge)
    assert "take a smaller base" in caught.value.todo


def test_a_budget_that_will_cut_the_stage_short_is_told() -> None:
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
    base, demand = smollm_base(), estimate_resources("sft", tuning(), PAIRS, 30)
    assert required_memory(base, tuning(), "fp32", demand, 8) > required_memory(base, tuning(), "fp32", demand, 4)
    assert required_memory(base, tuning(attention="eager"), "fp32", demand, 8) > required_memory(
        base, tuning(), "fp32", demand, 8
    )
    assert required_memory(base, tuning(), "fp32", demand, 8) > required_memory(base, tuning(), "bf16", demand, 8)


def test_where_only_upper_layers_learn_it_takes_less() -> None:
    """Nothing is kept of the layers below, and nothing goes back through them; more than there are is told."""
    base, demand, upper = smollm_base(), estimate_resources("sft", tuning(), PAIRS, 30), tuning(lora={"layers": 10})
    assert required_memory(base, upper, "fp32", demand, 8) < required_memory(base, tuning(), "fp32", demand, 8)
    assert required_memory(base, tuning(lora={"layers": 30}), "fp32", demand, 8) == required_memory(
        base, tuning(), "fp32", demand, 8
    )
    with pytest.raises(CaseError, match="More layers are to learn") as caught:
        fits(tuning(lora={"layers": 31}))
    assert (caught.value.where, caught.value.allowed) == ("train.lora.layers", "1 to 30")
