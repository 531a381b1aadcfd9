"""A search of a language case: what helps is found within the calls, and each arm is shown with what it costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.search.config import Search
from tasks.search.language.ladder import cheapest_good, ladder
from tasks.search.results import SearchResult
from tasks.search.search import search
from tests.language.upstreams import misbehaving
from tests.search.language_task import follows_examples, language_problem, language_task, remote_base

BUDGET = 250  # calls


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchResult, int]:
    """A search, and how many requests the model's server got."""
    folder = tmp_path_factory.mktemp("searched")
    with misbehaving(follows_examples) as server:
        problem = language_problem(language_task(folder, remote_base(folder / "base", server)))
        result = search(problem, Search(), f"{BUDGET}-calls", state=folder / "state", observe=lambda _: None)
        return result, len(server.requests)


def test_the_arm_that_helps_is_chosen(searched: tuple[SearchResult, int]) -> None:
    """Two examples make this model right; the comparison with the case's prompt shows it."""
    result, _ = searched
    assert result.best.arm == "examples"
    assert result.best.loss == 0
    assert result.is_better


def test_no_call_is_beyond_the_budget(searched: tuple[SearchResult, int]) -> None:
    """What the server got is what was counted, once: by trials and as a whole."""
    result, requests = searched
    assert requests == result.calls <= BUDGET
    assert sum(trial.calls for trial in result.trials) == result.calls


def test_arms_stand_side_by_side(searched: tuple[SearchResult, int]) -> None:
    """From no prompt to examples, losses fall and calls become dearer; an arm that is worse stops early."""
    steps = ladder(searched[0])
    assert [step.trial.arm for step in steps] == ["base", "prompt", "examples"]
    losses = [step.trial.loss or 0.0 for step in steps]
    assert losses == sorted(losses, reverse=True)
    costs = [step.trial.call_cost for step in steps]
    assert costs == sorted(costs)
    assert [step.is_whole for step in steps] == [False, True, True]


def test_the_cheapest_good_arm_is_named(searched: tuple[SearchResult, int]) -> None:
    """Of the arms near the best, the one whose calls cost least."""
    result, _ = searched
    cheapest = cheapest_good(result)
    assert cheapest.arm == "examples"
    assert cheapest.call_cost <= result.best.call_cost
    assert cheapest_good(result, within=1.0).call_cost <= cheapest.call_cost
    assert Path(result.folder).is_dir()
