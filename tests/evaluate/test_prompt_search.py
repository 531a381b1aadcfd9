"""A search finds the better prompt, keeps its budget, goes on after a kill, and never sees the gates' questions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import DataError, InputError
from tasks.core.places import Places
from tasks.data.config import ChatSpec
from tasks.data.language.pairs import PairFormat, read_pairs, write_pairs
from tasks.data.results import BaseModelFiles
from tasks.evaluate.language.call_budget import Limit
from tasks.evaluate.language.evaluation_run import EvaluationRun
from tasks.evaluate.language.prompt_search import PromptSearch, PromptTask, search_prompt
from tasks.evaluate.language.prompt_space import PromptSpace, literal
from tasks.language.prompts import Prompt, PromptMessage, render
from tasks.language.upstream import UPSTREAM
from tasks.train.config import Serving
from tasks.train.results import LanguageSpec
from tests.language.upstreams import Misbehaving, Reply, completion, misbehaving, whole
from tests.language_case import smollm_base
from tests.place_pairs import ROWS, TEXT


def follows_examples(request: dict[str, Any], _: int) -> Reply:
    """A model that answers rightly once it has seen two examples, and wrongly with another instruction."""
    messages = request["messages"]
    wanted = messages[-1]["content"].removeprefix("Where is ").rstrip("?")
    knows = sum(each["role"] == "assistant" for each in messages) >= 2 and messages[0]["content"] == "Answer."
    return whole(completion(f"In {wanted}'s room." if knows else "No idea."))


def task_of(folder: Path, base: BaseModelFiles, rows: list[dict[str, Any]] = ROWS) -> PromptTask:
    folder.mkdir(exist_ok=True)
    write_pairs(read_pairs("rooms", rows, PairFormat(TEXT)), folder / "train.parquet")
    chat = ChatSpec(prompt=Prompt(system="Answer."), answer=TEXT, context=256)
    spec = LanguageSpec(base=base, chat=chat, serving=Serving(slots=2, answer_tokens=8))
    return PromptTask("rooms", EvaluationRun(folder, spec, 1, folder / "state"), "data", base.served, "missing_facts")


def remote_task(folder: Path, server: Misbehaving, rows: list[dict[str, Any]] = ROWS) -> PromptTask:
    folder.mkdir(exist_ok=True)
    server.upstream.write(folder / UPSTREAM)
    base = BaseModelFiles(
        source=server.upstream.source,
        digest="0" * 64,
        folder=folder,
        template_digest="",
        parameters=0,
        context=256,
        upstream=server.upstream,
    )
    return task_of(folder, base, rows)


def space_of(task: PromptTask, instructions: tuple[str, ...] = ("Say no.", "Be brief.")) -> PromptSpace:
    return PromptSpace(task.run.spec.chat.prompt, TEXT.texts, instructions, task.questions[1])


def searched(task: PromptTask, state: Path, limit: str) -> PromptSearch:
    return search_prompt(task, space_of(task), Limit.parse(limit), Places.in_folder(state))


def test_the_better_prompt_is_found(tmp_path: Path, state: Path) -> None:
    """Two examples help here; prompts that are worse are dropped after a few questions; each call is counted."""
    with misbehaving(follows_examples) as server:
        task = remote_task(tmp_path / "found", server)
        found = searched(task, state, "300-calls")
        assert len(server.requests) == found.calls <= 300
    assert found.prompt
    assert len([each for each in found.prompt.messages if each.role == "assistant"]) >= 2
    assert found.stopped == "no loss is left"
    assert "mean difference -1" in found.comparison
    better = [trial for trial in found.trials if trial.outcome == "better"]
    assert (better[-1].loss, better[-1].answered) == (0.0, found.questions)
    sent = {message["content"] for request in server.requests for message in request["messages"][-1:]}
    examples = {message for message, _ in task.questions[1]}
    assert not sent & examples


def test_a_loser_stops_early(tmp_path: Path, state: Path) -> None:
    """Beside a prompt that is right, one that is wrong answers a block of questions, not all."""

    def only_the_own(request: dict[str, Any], _: int) -> Reply:
        room = request["messages"][-1]["content"].removeprefix("Where is ").rstrip("?")
        own = [each["content"] for each in request["messages"][:-1]] == ["Answer."]
        return whole(completion(f"In {room}'s room." if own and room != "thing7" else "No idea."))

    with misbehaving(only_the_own) as server:
        found = searched(remote_task(tmp_path / "early", server), state, "500-calls")
    assert found.prompt is None
    assert {(trial.outcome, trial.answered) for trial in found.trials} == {("dropped", 8)}
    assert found.stopped == "no untried prompt is left beside the best"


def test_a_killed_search_goes_on(tmp_path: Path, state: Path) -> None:
    """Its answers and its calls are remembered: no call twice, and not more than the budget over all runs."""
    with misbehaving(follows_examples) as server:
        whole_search = searched(remote_task(tmp_path / "at once", server), tmp_path / "one", "90-calls")
        server.requests.clear()
        task = remote_task(tmp_path / "at once", server)
        first = searched(task, tmp_path / "two", "40-calls")
        assert (first.calls, first.stopped) == (40, "the budget of 40 calls is spent")
        second = searched(task, tmp_path / "two", "90-calls")
        bodies = [json.dumps(request) for request in server.requests]
    assert (second.calls, second.calls_before) == (90, 40)
    assert len(bodies) == len(set(bodies)) == 90
    assert second.trials[: len(whole_search.trials)] == whole_search.trials


def test_a_budget_of_time_holds(tmp_path: Path, state: Path) -> None:
    """Calls that began before its end finish, and no other begins."""
    slow = whole(completion("No idea."))
    with misbehaving(replace(slow, pause=0.3)) as server:
        found = searched(remote_task(tmp_path / "slow", server), state, "2s")
    assert found.stopped == "the budget of 2 s is spent"
    assert found.seconds < 4
    assert found.calls <= 2 * 2 / 0.3 + 2


def test_an_error_is_no_answer(tmp_path: Path, state: Path) -> None:
    """MLflow would score the text of an exception; the search ends with it."""
    refused = whole({"error": {"message": "too long"}}, 400)
    with misbehaving(refused) as server, pytest.raises(DataError, match="too long"):
        searched(remote_task(tmp_path / "refused", server), state, "100-calls")


@pytest.mark.parametrize("text", ["10", "0-calls", "-5m", "2000calls", "soon", ""])
def test_a_budget_that_can_not_be_read(text: str) -> None:
    """The error shows both forms."""
    with pytest.raises(InputError, match="2000-calls"):
        Limit.parse(text)


def test_too_little_to_compare_by(tmp_path: Path, state: Path) -> None:
    """A budget under two blocks of questions, or too few questions: an error before any call."""
    with misbehaving(follows_examples) as server:
        with pytest.raises(InputError, match="at least 16 calls"):
            searched(remote_task(tmp_path / "budget", server), state, "15-calls")
        with pytest.raises(DataError, match="too few questions"):
            searched(remote_task(tmp_path / "few", server, ROWS[:7]), state, "100-calls")
        assert not server.requests


def test_the_small_real_model(tmp_path: Path, state: Path) -> None:
    """A tiny budget with real answers: as many calls as it allows, and trials of real losses."""
    found = searched(task_of(tmp_path / "real", smollm_base()), state, "20-calls")
    assert found.calls == 20
    assert found.trials
    assert all(0 <= trial.loss <= 1 for trial in found.trials)


@pytest.mark.parametrize("text", ["Say {{ this }} as it is", "100 {% of }", 'quotes " and \\ {# ok', "plain"])
def test_a_text_in_a_template_stays_itself(text: str) -> None:
    """An example with Jinja's marks is shown as it stands."""
    prompt = Prompt(messages=(PromptMessage(role="system", content=literal(text)),))
    assert render(prompt, [{"role": "user", "content": "Hi"}])[0]["content"] == text


def test_neighbours_differ_in_one_respect() -> None:
    """Instruction, schema, and number, choice and order of examples; none twice, and each one a valid prompt."""
    pool = [(f"question {at}", f"answer {at} {{{{") for at in range(10)]
    own = Prompt.model_validate(
        {"messages": [{"role": "system", "content": "Answer."}, {"role": "user", "content": "Q: {{ message }}"}]}
    )
    space = PromptSpace(own, {"schema": "{}", "abstain": ""}, ("Be brief.", "{{ unknown }}"), pool)
    first = dict(space.neighbours(space.start))
    assert set(first) == {
        "1 example",
        "2 examples",
        "4 examples",
        "8 examples",
        "with the schema",
        "instruction: Be brief.",
    }
    four = first["4 examples"]
    titles = [title for title, _ in space.neighbours(four)]
    assert {"the examples in reverse", "the examples shuffled", "other 4 examples", "no example"} <= set(titles)
    messages = [json.dumps(space.messages(variant)) for _, variant in space.neighbours(four)]
    assert len(set(messages)) == len(messages)
    rendered = render(space.as_prompt(space.messages(four)), [{"role": "user", "content": "why?"}])
    assert [each["role"] for each in rendered] == ["system", *["user", "assistant"] * 4, "user"]
    assert rendered[-1]["content"] == "Q: why?"
    assert rendered[2]["content"].endswith("{{")
    assert "{{ schema }}" in space.messages(first["with the schema"])[0]["content"]


def test_a_search_may_move_the_passages() -> None:
    """In a case with knowledge: before the question, or after it."""
    space = PromptSpace(Prompt(system="Answer."), has_passages=True)
    places = {title: space.messages(variant)[-1]["content"] for title, variant in space.neighbours(space.start)}
    assert places == {
        "the passages before the question": "{{ passages }}\n\n{{ message }}",
        "the passages after the question": "{{ message }}\n\n{{ passages }}",
    }
