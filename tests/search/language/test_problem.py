"""A language case as the problem of a search: arms by cost, answers that are remembered, and no peeking."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from tasks.core.errors import DataError
from tasks.knowledge.config import Documents, Knowledge
from tasks.language.prompts import Prompt
from tasks.release.config import Price
from tasks.search.config import OtherModel
from tasks.search.language.bench import OtherBase
from tasks.search.language.problem import LanguageProblem, questions_of
from tasks.search.language.prompt_space import PromptSpace
from tasks.search.language.space import LanguageSpace
from tasks.search.problem import Configuration
from tasks.search.results import TrialRecord
from tasks.train.config import Lora, Sft, Stages, Tuning
from tests.language.upstreams import misbehaving
from tests.language_case import EMBEDDER
from tests.place_pairs import ROWS
from tests.search.language_task import follows_examples, language_problem, language_task, remote_base

KNOWLEDGE = Knowledge(documents={"docs": Documents(uri="file://docs")}, embedder=EMBEDDER, answer_by="extract")
TUNING = Tuning(lora=Lora(rank=16, alpha=8), stages=Stages(sft=Sft(learning_rate=1e-3)))


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> LanguageProblem:
    """A case of a prompt alone, whose model is never sent anything."""
    folder = tmp_path_factory.mktemp("problem")
    with misbehaving(follows_examples) as server:
        task = language_task(folder, remote_base(folder / "base", server))
    return language_problem(task)


def suggested(problem: LanguageProblem, count: int) -> list[Configuration]:
    """So many configurations, the first ones in the order of the problem."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    for each in problem.first():
        study.enqueue_trial(dict(each))
    found = []
    for _ in range(count):
        trial = study.ask()
        found.append(problem.suggest(trial))
        study.tell(trial, 0.5)
    return found


def record(arm: str, **measured: float) -> TrialRecord:
    """A trial of an arm."""
    return TrialRecord(number=1, arm=arm, label="", configuration={}, **measured)


def test_each_layer_is_tried_first_as_the_case_is(problem: LanguageProblem) -> None:
    """Prompt, examples and base come before what the sampler proposes; all are JSON."""
    found = suggested(problem, 30)
    assert [each["layer"] for each in found[:3]] == ["prompt", "examples", "base"]
    assert found[0] == problem.start() == {"layer": "prompt"}
    assert json.loads(json.dumps(found)) == found
    assert {problem.arm(each) for each in found} == {"base", "prompt", "examples"}
    assert {each.get("instruction", 0) for each in found} == {0, 1}


def test_equal_arms_have_equal_configurations() -> None:
    """What is as the case has it is left out, in whatever order it was chosen."""
    space = LanguageSpace(PromptSpace(Prompt(system="Answer.")), knowledge=KNOWLEDGE)
    assert space.options({"layer": "retrieval"})["answer_by"] == ["extract", "model"]
    assert space.options({"layer": "retrieval"})["passages"][0] == 5
    arm = space.arm({"layer": "retrieval", "passages": 3})
    assert (arm.knowledge, arm.passages) == ({"passages": 3}, True)
    assert space.arm({"layer": "retrieval", "passages": 5}).knowledge == {}


def test_extracts_have_no_prompt_to_choose() -> None:
    """Where sentences of passages answer, prompt, examples and decoding are no choice."""
    space = LanguageSpace(PromptSpace(Prompt(system="Answer."), {}, ("Be brief.",)), knowledge=KNOWLEDGE)
    assert "instruction" not in space.options({"layer": "retrieval"})
    assert "instruction" in space.options({"layer": "retrieval", "answer_by": "model"})
    assert "instruction" in space.options({"layer": "prompt"})


def test_a_tuned_arm_changes_what_is_trained() -> None:
    """Rank, layers, rate, preference stage and number format, as changes of the sections train and serve."""
    space = LanguageSpace(PromptSpace(Prompt(system="Answer.")), tuning=TUNING, layers=30, weights="q8_0")
    assert space.own == {"layer": "tuned"}
    arm = space.arm({"layer": "tuned", "rank": 4, "layers": 15, "rate": 2.0, "weights": "f16"})
    assert arm.train == {"lora": {"rank": 4, "layers": 15}, "stages": {"sft": {"learning_rate": 2e-3}}}
    assert arm.weights == "f16"
    assert "preference" in space.arm({"layer": "tuned", "preference": True}).train["stages"]
    assert space.arm({"layer": "tuned"}).train == {}


def test_a_change_of_the_case_says_what_differs(problem: LanguageProblem) -> None:
    """Examples become messages of the prompt; what is as it was is not named; no case answers without a prompt."""
    assert problem.as_change({"layer": "prompt"}) == {}
    assert problem.as_change({"layer": "prompt", "instruction": 1}) == {"prompt": {"system": "Be brief."}}
    change = problem.as_change({"layer": "examples", "examples": 2})
    roles = [each["role"] for each in change["prompt"]["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    Prompt.model_validate(change["prompt"])
    assert "without a prompt" in problem.exceeded(record("base"))
    assert problem.exceeded(record("prompt")) == ""


def test_a_changed_key_has_its_whole_value(problem: LanguageProblem) -> None:
    """Another rank leaves alpha as it is; what needs no adapter removes the section."""
    task = problem.task.model_copy(update={"tuning": TUNING})
    tuned = LanguageProblem(task, replace(problem.space, tuning=TUNING, layers=30))
    assert tuned.as_change({"layer": "tuned", "rank": 4}) == {"train": {"lora": {"rank": 4, "alpha": 8.0}}}
    assert tuned.as_change({"layer": "prompt"}) == {"train": None}


def test_a_call_that_is_too_dear_is_refused(problem: LanguageProblem) -> None:
    """By the most that the case allows for a call."""
    limited = replace(problem, most_call_cost=0.001)
    assert "at most 0.001" in limited.exceeded(record("prompt", call_cost=0.002))
    assert limited.exceeded(record("prompt", call_cost=0.001)) == ""


def test_answers_are_remembered(tmp_path: Path) -> None:
    """A measurement counts its calls and their price; the same one again costs nothing, and has the same losses."""
    with misbehaving(follows_examples) as server:
        problem = language_problem(language_task(tmp_path, remote_base(tmp_path / "base", server)))
        first = problem.measure({"layer": "examples", "examples": 2}, 0)
        again = problem.measure({"layer": "examples", "examples": 2}, 0)
        assert len(server.requests) == first.calls == len(first.losses) == 8
    assert again.calls == 0
    assert again.losses.tolist() == first.losses.tolist() == [0.0] * 8
    assert first.money > again.money == 0
    assert first.call_cost == again.call_cost > 0


def test_the_arms_differ_as_they_do(tmp_path: Path) -> None:
    """Without a prompt, with it, and with examples: losses fall on the same questions."""
    with misbehaving(follows_examples) as server:
        problem = language_problem(language_task(tmp_path, remote_base(tmp_path / "base", server)))
        arms = [{"layer": "base"}, {"layer": "prompt"}, {"layer": "examples", "examples": 4}]
        losses = [float(problem.measure(arm, 1).losses.mean()) for arm in arms]
    assert losses[0] == 1.0
    assert losses[0] > losses[1] > losses[2] == 0.0


def test_another_base_model_is_an_arm(tmp_path: Path) -> None:
    """A configured model answers in the place of the case's, at its own price; adopting it names it in `model`."""
    price = Price(tokens_in=10.0, tokens_out=40.0, machine_hour=0.0)
    with misbehaving(follows_examples) as own, misbehaving(follows_examples) as server:
        other = OtherModel(source=server.upstream.source, context=512)
        others = {"larger": OtherBase(model=other, files=remote_base(tmp_path / "other", server), price=price)}
        task = language_task(tmp_path, remote_base(tmp_path / "base", own)).model_copy(update={"others": others})
        problem = language_problem(task, models=("larger",))
        arm = {"layer": "prompt", "model": "larger"}
        scores = problem.measure(arm, 0)
        assert (len(own.requests), len(server.requests)) == (0, scores.calls)
        assert scores.call_cost == pytest.approx(10 * problem.measure({"layer": "prompt"}, 0).call_cost, rel=0.5)
    assert problem.space.options({"layer": "base"}) == {"model": ["own", "larger"]}
    assert problem.space.options({"layer": "prompt"})["model"] == ["own", "larger"]
    change = problem.as_change(arm)
    assert change["model"] == {"source": other.source, "context": 512}
    assert change["price"] == {"tokens_in": 10.0, "tokens_out": 40.0, "machine_hour": 0.0}
    assert problem.estimate(arm, 0).money > problem.estimate({"layer": "prompt"}, 0).money


def test_no_question_is_an_example(problem: LanguageProblem) -> None:
    """What a prompt may show is never what it answers."""
    questions, pool = questions_of(problem.task)
    shown = {message for message, _ in pool}
    assert not shown & {json.loads(messages)[-1]["content"] for messages in questions["messages"]}
    assert problem.rungs[0] == "questions 1 to 8"
    assert problem.rungs[-1].endswith(f"to {len(questions)}")


def test_a_tuned_model_answers_what_it_did_not_learn(tmp_path: Path) -> None:
    """The questions are those of the validation split; examples come from the training pairs."""
    with misbehaving(follows_examples) as server:
        task = language_task(tmp_path, remote_base(tmp_path / "base", server))
    pairs = task.pairs
    (pairs / "validation.parquet").write_bytes((pairs / "train.parquet").read_bytes())
    tuned = task.model_copy(update={"tuning": TUNING})
    assert len(questions_of(tuned)[0]) == len(ROWS)
    (pairs / "validation.parquet").unlink()
    with pytest.raises(DataError, match="too few questions"):
        questions_of(tuned)


def test_an_arm_is_foreseen(problem: LanguageProblem) -> None:
    """More questions and more examples take longer, and calls are counted ahead."""
    few = problem.estimate({"layer": "prompt"}, 0)
    more = problem.estimate({"layer": "prompt"}, 1)
    assert few.calls == 8
    assert more.calls > few.calls
    assert more.seconds > few.seconds
    shown = problem.estimate({"layer": "examples", "examples": 8}, 0)
    assert shown.money > few.money > 0
