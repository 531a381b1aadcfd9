"""Reward functions from the case's scorers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tasks.language.answer_scoring import Scorer, reward


def verifiable(scorer: Scorer) -> Callable[..., list[float]]:
    """A reward function for trl, which passes the columns `answer` and `message` with each completion."""

    def rewards(completions: list[Any], answer: list[str], message: list[str], **_: Any) -> list[float]:
        texts = [completion[0]["content"] for completion in completions]
        return [reward(scorer.score(*each)) for each in zip(texts, answer, message, strict=True)]

    return rewards
