"""Run the test set of a prompt, and compare the result with the champion's: the gates of a prompt change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.config import Result
from tasks.core.progress import progress_step
from tasks.evaluate.criteria import difference_criterion
from tasks.evaluate.language.responses import EngineOptions, generate_responses
from tasks.evaluate.results import Criterion
from tasks.language.messages import USER, chat_message
from tasks.language.prompt_tests import AnswerChecker, PromptTests
from tasks.language.prompts import Prompt, render
from tasks.statistics.bootstrap import MIN_CLUSTERS, paired_bootstrap
from tasks.train.config import Serving

if TYPE_CHECKING:
    import numpy as np

    from tasks.knowledge.answers.answerer import Answerer


@dataclass(frozen=True)
class PromptBench:
    """What answers the tests: an engine's settings, the schema of answers in JSON, and the price of an hour."""

    serving: Serving
    context: int
    threads: int
    state: Path
    schema: Mapping[str, Any] | None = None
    price: float = 0.0
    answerer: Answerer | None = None  # of a case with knowledge

    def responses(self, model: Path, prompt: Prompt, tests: PromptTests, repeat: int) -> list[dict[str, Any]]:
        """An answer to each test, as it is served: text, tokens_out and seconds. Raises: DataError, Unavailable."""
        turns = [[chat_message(USER, test.message)] for test in tests.tests]
        prepared = [self.answerer.prepare(each) if self.answerer else None for each in turns]
        sent_turns = [list(each.messages or ()) if each else own for each, own in zip(prepared, turns, strict=True)]
        conversations = [render(prompt, each) for each in sent_turns if each]
        options = EngineOptions(self.serving, self.context, self.threads, prompt.parameters, repeat)
        rows: list[dict[str, Any]] = []
        if conversations:
            schema = dict(self.schema) if self.schema is not None else None
            table, _ = generate_responses(model, conversations, options, self.state, schema)
            rows = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
        replies = iter(rows)
        answers = []
        for each, sent in zip(prepared, sent_turns, strict=True):
            reply: dict[str, Any] = next(replies) if sent else {"text": "", "tokens_out": 0, "seconds": 0.0}
            text = self.answerer.finish(each, reply["text"]).text if self.answerer and each else reply["text"]
            answers.append({**reply, "text": text})
        return answers


class CheckedAnswer(Result):
    """An answer to a test, with the checks that it fails."""

    test: int
    repeat: int
    text: str
    checks: int
    failed: tuple[str, ...]

    @property
    def loss(self) -> float:
        """The share of its checks that it fails."""
        return len(self.failed) / self.checks


def run_prompt_tests(model: Path, prompt: Prompt, tests: PromptTests, bench: PromptBench) -> list[CheckedAnswer]:
    """Answers of a model with a prompt to all tests, checked; several of each where decoding samples.

    Equal inputs ask the model once. Raises: DataError, Unavailable.
    """
    checker = AnswerChecker(bench.schema)
    answers = []
    with progress_step(f"test the prompt {prompt.label}") as step:
        for repeat in range(repeats_of(prompt, tests)):
            rows = bench.responses(model, prompt, tests, repeat)
            for at, (test, row) in enumerate(zip(tests.tests, rows, strict=True)):
                cost = row["seconds"] / 3600 * bench.price
                failed = tuple(checker.failed(test, row["text"], int(row["tokens_out"]), cost))
                answers.append(
                    CheckedAnswer(test=at, repeat=repeat, text=row["text"], checks=test.checks, failed=failed)
                )
        step.figure = f"{1 - mean_loss(answers):.0%} of the checks pass, {len(answers)} answers"
    return answers


def repeats_of(prompt: Prompt, tests: PromptTests) -> int:
    """Answers to each test: one at temperature 0."""
    return tests.repeats if prompt.parameters.temperature else 1


def mean_loss(answers: Sequence[CheckedAnswer]) -> float:
    """The mean share of failed checks."""
    return sum(answer.loss for answer in answers) / len(answers)


def prompt_criteria(
    tests: PromptTests, answers: Sequence[CheckedAnswer], champion: Sequence[CheckedAnswer] | None, problem: str = ""
) -> list[Criterion]:
    """The criteria of a test set; `problem` is why the champion's answers are missing."""
    passed = 1 - mean_loss(answers)
    failing = sum(bool(answer.failed) for answer in answers)
    note = f"{failing} of {len(answers)} answers to {len(tests.tests)} tests fail a check"
    repeatable = all(test.max_cost is None for test in tests.tests)
    bound = Criterion(
        name="prompt_tests",
        observed=passed,
        required=f">= {tests.pass_rate:g}",
        passed=passed >= tests.pass_rate,
        note=note,
        repeatable=repeatable,
    )
    return [bound, _comparison(tests, answers, champion, problem).model_copy(update={"repeatable": repeatable})]


def _comparison(
    tests: PromptTests, answers: Sequence[CheckedAnswer], champion: Sequence[CheckedAnswer] | None, problem: str
) -> Criterion:
    """Whether the failed checks are shown to be no more than the champion's.

    A paired bootstrap over tests, with all repeats of a test together. Equal prompts are rejected at most as often
    as the confidence says; what is not shown is no rejection.
    """
    name, required = "champion_prompt_tests", f"<= {tests.margin:g} worse than the champion"
    few = len(tests.tests) < MIN_CLUSTERS
    if champion is None or few:
        note = f"only {len(tests.tests)} tests; {MIN_CLUSTERS} are needed to compare" if few else problem
        fine = few or not problem
        return Criterion(
            name=name, observed=None, required=required, passed=fine, note=note or "no champion yet", blocking=not few
        )
    challenger, other, clusters = _paired(answers, champion)
    result = paired_bootstrap(challenger, other, confidence=tests.confidence, clusters=clusters)
    return difference_criterion(name, result, tests.margin)


def _paired(
    answers: Sequence[CheckedAnswer], champion: Sequence[CheckedAnswer]
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Losses of both sides for the same tests and repeats; a side that does not sample has one answer to all."""
    import numpy as np

    sides = [_by_test(answers), _by_test(champion)]
    repeats = max(len(losses) for side in sides for losses in side.values())
    order = sorted(sides[0])
    both = [np.array([np.resize(side[test], repeats) for test in order]).ravel() for side in sides]
    return both[0], both[1], [test for test in order for _ in range(repeats)]


def _by_test(answers: Sequence[CheckedAnswer]) -> dict[int, list[float]]:
    losses: dict[int, list[float]] = {}
    for answer in answers:
        losses.setdefault(answer.test, []).append(answer.loss)
    return losses
