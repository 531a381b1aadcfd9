"""A search of prompts alone: what the case does otherwise stays, the budget is held, and a killed search goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import DataError, InputError
from tasks.knowledge.config import Documents, Knowledge
from tasks.language.prompts import Prompt, PromptMessage, render
from tasks.search.config import Search
from tasks.search.language.problem import LanguageProblem, questions_of
from tasks.search.language.prompt_space import PromptSpace, literal
from tasks.search.language.space import LanguageSpace
from tasks.search.results import SearchResult
from tasks.search.search import search
from tasks.train.config import Lora, Sft, Stages, Tuning
from tests.language.upstreams import Misbehaving, Reply, completion, misbehaving, whole
from tests.language_case import EMBEDDER
from tests.place_pairs import ROWS
from tests.search.language_task import follows_examples, language_problem, language_task, remote_base

KNOWLEDGE = Knowledge(documents={"docs": Documents(uri="file://docs")}, embedder=EMBEDDER)
TUNING = Tuning(lora=Lora(rank=16, alpha=8), stages=Stages(sft=Sft(learning_rate=1e-3)))
TWO_SHOWN = Prompt.model_validate(
    {
        "messages": [
            {"role": "system", "content": "Answer."},
            {"role": "user", "content": "Where is thing1?"},
            {"role": "assistant", "content": "In thing1's room."},
        ]
    }
)


def prompt_problem(folder: Path, server: Misbehaving, rows: int = len(ROWS)) -> LanguageProblem:
    """The prompts of a case whose model is a server."""
    task = language_task(folder, remote_base(folder / "base", server), ROWS[:rows])
    return language_problem(task, is_prompt_only=True)


def searched(problem: LanguageProblem, state: Path, budget: str) -> SearchResult:
    return search(problem, Search(), budget, state=state, observe=lambda _: None)


def test_a_killed_search_of_prompts_goes_on(tmp_path: Path) -> None:
    """The better prompt is found in two runs of one budget: no call is made twice, and none is beyond it."""
    with misbehaving(follows_examples) as server:
        problem = prompt_problem(tmp_path, server)
        first = searched(problem, tmp_path / "state", "60-calls")
        assert len(server.requests) == first.calls <= 60
        second = searched(problem, tmp_path / "state", "150-calls")
        bodies = [json.dumps(request) for request in server.requests]
    assert len(bodies) == len(set(bodies)) == second.calls <= 150
    assert first.calls < second.calls
    assert second.best.arm == "examples"
    assert second.best.loss == 0
    assert {trial.arm for trial in second.trials} == {"prompt", "examples"}
    assert set(second.best.change) == {"prompt"}
    assert [trial.label for trial in second.trials[1:3]] == ["instruction 1", "examples 1"]


def test_a_budget_below_one_trial_spends_nothing(tmp_path: Path) -> None:
    """The case as it is answers all questions first; the error says how many calls that takes."""
    with misbehaving(follows_examples) as server:
        with pytest.raises(InputError, match="too small") as refused:
            searched(prompt_problem(tmp_path / "few", server), tmp_path / "state", "20-calls")
        with pytest.raises(DataError, match="too few questions"):
            prompt_problem(tmp_path / "fewer", server, 7)
        assert not server.requests
    assert "27 calls" in refused.value.allowed


def test_an_error_is_no_answer(tmp_path: Path) -> None:
    """A model that refuses ends the search; nothing is scored."""
    refused = whole({"error": {"message": "too long"}}, 400)
    with misbehaving(refused) as server, pytest.raises(DataError, match="can't be measured") as error:
        searched(prompt_problem(tmp_path, server), tmp_path / "state", "100-calls")
    assert "too long" in error.value.found


def test_all_but_the_prompt_stays() -> None:
    """In a case with knowledge or with a tuned model, the choices are those of its prompt."""
    pool = [(f"question {at}", "answer") for at in range(8)]
    prompts = PromptSpace(Prompt(system="Answer."), {}, ("Be brief.", "{{ unknown }}"), pool)
    retrieval = LanguageSpace(prompts, knowledge=KNOWLEDGE, is_prompt_only=True)
    assert retrieval.reachable == ("retrieval",)
    assert set(retrieval.options({"layer": "retrieval"})) == {"instruction", "examples", "place"}
    assert retrieval.options({"layer": "retrieval"})["instruction"] == [0, 1]
    tuned = LanguageSpace(prompts, tuning=TUNING, is_prompt_only=True)
    assert set(tuned.options({"layer": "tuned"})) == {"instruction", "examples"}
    assert tuned.arm({"layer": "tuned", "instruction": 1}).train == {}
    assert LanguageSpace(prompts, is_prompt_only=True).reachable == ("prompt", "examples")


def test_the_search_starts_from_the_prompt_as_it_is(tmp_path: Path) -> None:
    """A prompt with examples of its own keeps them, and is not taken for one without."""
    with misbehaving(follows_examples) as server:
        problem = prompt_problem(tmp_path, server)
    shown = replace(problem, space=replace(problem.space, prompts=replace(problem.space.prompts, prompt=TWO_SHOWN)))
    assert shown.start() == {"layer": "examples"}
    assert shown.as_change(shown.start()) == {}
    assert shown.describe(shown.start()) == "as the case is"
    assert len(shown.space.arm(shown.start()).messages) == 3
    assert shown.as_change({"layer": "prompt"}) == {"prompt": {"system": "Answer."}}


def test_a_search_may_move_the_passages() -> None:
    """In a case with knowledge: before the question, or after it."""
    space = LanguageSpace(PromptSpace(Prompt(system="Answer.")), knowledge=KNOWLEDGE, is_prompt_only=True)
    places = space.options({"layer": "retrieval"})["place"]
    last = [space.arm({"layer": "retrieval", "place": place}).messages[-1] for place in places]
    assert last[0]["role"] == "system"
    assert [each["content"] for each in last[1:]] == [
        "{{ passages }}\n\n{{ message }}",
        "{{ message }}\n\n{{ passages }}",
    ]


@pytest.mark.parametrize("text", ["Say {{ this }} as it is", "100 {% of }", 'quotes " and \\ {# ok', "plain"])
def test_a_text_in_a_template_stays_itself(text: str) -> None:
    """An example with Jinja's marks is shown as it stands."""
    prompt = Prompt(messages=(PromptMessage(role="system", content=literal(text)),))
    assert render(prompt, [{"role": "user", "content": "Hi"}])[0]["content"] == text


def test_a_prompt_that_loses_at_the_end_is_whole(tmp_path: Path) -> None:
    """Where all trials of an arm are beaten on their last questions, the best of them counts as complete."""
    first: set[str] = set()

    def right_at_first(request: Mapping[str, Any], _: int) -> Reply:
        messages = request["messages"]
        shown = any(each["role"] == "assistant" for each in messages)
        question = messages[-1]["content"]
        thing = question.removeprefix("Where is ").rstrip("?")
        return whole(completion("No idea." if shown and question not in first else f"In {thing}'s room."))

    with misbehaving(right_at_first) as server:
        problem = prompt_problem(tmp_path, server, 24)
        questions, _ = questions_of(problem.task)
        first |= {json.loads(each)[-1]["content"] for each in questions["messages"][:8]}
        result = searched(problem, tmp_path / "state", "24-trials")
    assert len(result.rungs) == 2
    complete = [trial for trial in result.trials if trial.arm == "examples" and trial.state == "complete"]
    assert [(trial.rungs, trial.loss) for trial in complete] == [(2, 0.5)]
