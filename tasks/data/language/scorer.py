"""The scorer of a case's answers."""

from __future__ import annotations

from tasks.data.config import Answer
from tasks.language.answer_scoring import JsonScorer, Scorer
from tasks.language.text_scoring import TextScorer


def scorer_of(answer: Answer) -> Scorer:
    """The scorer for the format of a case's answers."""
    if answer.json_schema is None:
        return TextScorer(answer.abstain if isinstance(answer.abstain, str) else None)
    return JsonScorer(answer.json_schema, answer.stated, answer.abstain if isinstance(answer.abstain, dict) else None)
