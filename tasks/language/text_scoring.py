"""Deterministic scores of answers in prose: overlap with a reference, required and forbidden facts, length."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from tasks.language.answer_scoring import Score, is_refusal, is_repetitive, repetition

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation, " "))
MAX_TOKENS = 2_000  # of a text; ROUGE-L takes time by the product of both lengths


class TextScorer:
    """Scores answers in prose of one case."""

    def __init__(self, abstain: str | None = None) -> None:
        self._abstain = None if abstain is None else normalize(abstain)

    def score(
        self, text: str, answer: str, message: str, required: Sequence[str] = (), forbidden: Sequence[str] = ()
    ) -> Score:
        """Score `text` against the reference `answer` (may be empty), and facts that it must or must not state.

        A fact is a text that must occur, whatever its case and punctuation; between slashes, a regular expression.
        """
        tokens, expected = (normalize(each).split()[:MAX_TOKENS] for each in (text, answer))
        share = repetition(text)
        return Score(
            json_valid=None,
            schema_valid=None,
            exact=bool(expected) and tokens == expected,
            exact_anywhere=bool(expected) and f" {' '.join(expected)} " in f" {' '.join(tokens)} ",
            fields_correct=0,
            fields_predicted=0,
            fields_expected=0,
            hallucinated=None,
            abstained=self._abstains(text),
            should_abstain=self._abstains(answer) if answer.strip() or required else None,
            repetition=share,
            repeated=is_repetitive(text, share),
            token_f1=token_f1(tokens, expected) if expected else None,
            rouge_l=rouge_l(tokens, expected) if expected else None,
            facts_stated=sum(states(text, fact) for fact in required),
            facts_required=len(required),
            forbidden_stated=any(states(text, fact) for fact in forbidden) if forbidden else None,
            words=len(text.split()),
            empty=not text.strip(),
            has_reference=bool(answer.strip()),
        )

    def _abstains(self, text: str) -> bool:
        return is_refusal(text) or (self._abstain is not None and normalize(text) == self._abstain)


def normalize(text: str) -> str:
    """Lower case without punctuation, articles and extra blanks, as SQuAD compares answers."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def states(text: str, fact: str) -> bool:
    """Whether a text states a fact."""
    if len(fact) > 2 and fact.startswith("/") and fact.endswith("/"):
        return re.search(fact[1:-1], text, re.IGNORECASE) is not None
    return f" {normalize(fact)} " in f" {normalize(text)} "


def token_f1(tokens: Sequence[str], expected: Sequence[str]) -> float:
    """The harmonic mean of precision and recall over tokens. Source: Rajpurkar et al., SQuAD (2016)."""
    common = (Counter(tokens) & Counter(expected)).total()
    return 2 * common / (len(tokens) + len(expected)) if common else 0.0


def rouge_l(tokens: Sequence[str], expected: Sequence[str]) -> float:
    """The F-measure of the longest common subsequence. Source: Lin, ROUGE (2004)."""
    lengths = [0] * (len(expected) + 1)
    for token in tokens:
        diagonal = 0
        for at, other in enumerate(expected, start=1):
            diagonal, lengths[at] = (
                lengths[at],
                diagonal + 1 if token == other else max(lengths[at], lengths[at - 1]),
            )
    return 2 * lengths[-1] / (len(tokens) + len(expected)) if lengths[-1] else 0.0
