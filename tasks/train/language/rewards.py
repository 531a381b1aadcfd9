"""What an answer is worth: computed by the case's scorers, or judged by a model trained on preferences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tasks.data.config import Answer
from tasks.language.answer_scoring import Scorer, reward


def scorer_of(answer: Answer) -> Scorer:
    """The case's scorer."""
    return Scorer(answer.json_schema, answer.stated, answer.abstain)


def verifiable(scorer: Scorer) -> Callable[..., list[float]]:
    """A reward function as trl calls it, with the columns `answer` and `message` beside each completion."""

    def checked(completions: list[Any], answer: list[str], message: list[str], **_: Any) -> list[float]:
        texts = [completion[0]["content"] for completion in completions]
        return [reward(scorer.score(*each)) for each in zip(texts, answer, message, strict=True)]

    return checked
