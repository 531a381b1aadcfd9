"""The gate of a prompt change: equal prompts pass as not worse, and chance alone rejects them as rarely as promised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tasks.evaluate.criteria import decide
from tasks.evaluate.language.prompt_tests import CheckedAnswer, mean_loss, prompt_criteria
from tasks.language.prompt_tests import AnswerChecker, PromptTest, PromptTests

RUNS = 300
SET: dict[str, Any] = {"tests": [{"message": f"question {at}", "required": ["x"]} for at in range(40)], "repeats": 8}
TESTS = PromptTests.model_validate({**SET, "pass_rate": 0.0, "margin": 0.1})


def sampled(rates: Sequence[float], random: np.random.Generator, repeats: int = 8) -> list[CheckedAnswer]:
    """Answers that pass each test with its own probability, as a model that samples gives them."""
    return [
        CheckedAnswer(test=at, repeat=repeat, text="", checks=1, failed=() if random.random() < rate else ("x",))
        for repeat in range(repeats)
        for at, rate in enumerate(rates)
    ]


def decisions(worse_by: float) -> list[str]:
    """What the gate decides of a prompt whose true pass rates lie that much below the champion's."""
    decided: list[str] = []
    for run in range(RUNS):
        random = np.random.default_rng(run)
        rates = random.beta(4, 1.5, 40)  # some tests are easy, some hardly ever pass
        challenger, champion = sampled(np.clip(rates - worse_by, 0, 1), random), sampled(rates, random)
        decided.append(decide(prompt_criteria(TESTS, challenger, champion)))
    return decided


def test_equal_prompts_are_promoted_and_hardly_ever_rejected() -> None:
    """Two equal prompts sample different answers; a gate on single trials would reject nearly half of them."""
    decided = decisions(0.0)
    assert decided.count("promote") / RUNS > 0.85
    assert decided.count("reject") / RUNS <= 0.05
    random = np.random.default_rng(0)
    rates = random.beta(4, 1.5, 40)
    single = [mean_loss(sampled(rates, random, 1)) > mean_loss(sampled(rates, random, 1)) for _ in range(RUNS)]
    assert np.mean(single) > 0.3


def test_a_worse_prompt_is_promoted_no_more_often_than_promised() -> None:
    """At the margin itself in 5 % of all cases; one that fails a third more checks never, and it is rejected."""
    at_margin = decisions(0.12)  # clipped at 0, this costs about the margin
    assert at_margin.count("promote") / RUNS <= 0.08
    much_worse = decisions(0.35)
    assert much_worse.count("promote") == 0
    assert much_worse.count("reject") / RUNS > 0.9


def test_an_answer_without_sampling_stands_for_all_repeats() -> None:
    """A champion at temperature 0 has one answer to each test, a candidate that samples several."""
    random = np.random.default_rng(1)
    criteria = prompt_criteria(TESTS, sampled([0.9] * 40, random), sampled([1.0] * 40, random, 1))
    assert "of 320 examples" in criteria[1].note


@pytest.mark.parametrize(
    ("tests", "champion", "problem", "decision", "says"),
    [
        (40, False, "", "promote", "no champion yet"),
        (40, False, "the champion can't answer", "insufficient evidence", "the champion can't answer"),
        (5, True, "", "promote", "only 5 tests; 8 are needed"),
        (5, False, "", "promote", "only 5 tests"),
    ],
)
def test_what_can_not_be_compared(tests: int, champion: bool, problem: str, decision: str, says: str) -> None:
    """A first prompt passes by its pass rate; a champion that can't answer is no evidence."""
    few = PromptTests.model_validate({**SET, "tests": SET["tests"][:tests], "pass_rate": 1.0})
    answers = sampled([1.0] * tests, np.random.default_rng(0))
    criteria = prompt_criteria(few, answers, answers if champion else None, problem)
    assert (decide(criteria), says in criteria[1].note) == (decision, True)


def test_a_low_pass_rate_rejects_even_a_first_prompt() -> None:
    """With how many answers fail."""
    criteria = prompt_criteria(PromptTests.model_validate(SET), sampled([0.5] * 40, np.random.default_rng(0)), None)
    assert decide(criteria) == "reject"
    assert "answers to 40 tests fail a check" in criteria[0].note


@pytest.mark.parametrize(
    ("test", "text", "failed"),
    [
        ({"required": ["room 2", "/floor [0-9]/"]}, "Room 2, floor 3.", []),
        ({"required": ["room 2"]}, "Room 21.", ["does not state room 2"]),
        ({"forbidden": ["/[A-Z]{2}[0-9]{3}/"]}, "Your key is ab123.", ["states /[A-Z]{2}[0-9]{3}/"]),
        ({"format": "json"}, '{"room": 2}', []),
        ({"format": "json"}, '{"room": "two"}', ["is not JSON by the schema"]),
        ({"format": "text"}, '{"room": 2}', ["is JSON"]),
        ({"max_words": 2}, "one two three", ["3 words; at most 2"]),
        ({"max_tokens": 9}, "any", ["10 tokens; at most 9"]),
        ({"max_cost": 0.1}, "any", ["costs 0.2; at most 0.1"]),
    ],
)
def test_each_check_can_fail(test: dict[str, Any], text: str, failed: list[str]) -> None:
    """And says what it found, and what is allowed."""
    schema = {"type": "object", "properties": {"room": {"type": "integer"}}}
    checker = AnswerChecker(schema)
    assert checker.failed(PromptTest.model_validate({"message": "Hi", **test}), text, 10, 0.2) == failed
