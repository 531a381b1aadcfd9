"""When no passage answers a question: four signals of a search, and the rule that weighs them.

A logistic regression of the signals, fitted on the case's development questions, is the confidence that the passages
answer. Below the threshold that separates answerable and unanswerable development questions best, the answer abstains.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from tasks.core.config import Result
from tasks.knowledge.results import Hit, Passage
from tasks.language.content_words import WORD, compounds, content_words

if TYPE_CHECKING:
    import numpy as np

SIGNALS = ("similarity", "margin", "coverage", "agreement")
SAMPLE = 5_000  # passages whose words are counted
AGREED = 3  # places within which words and vectors agree
MIN_QUESTIONS = 5  # answerable and unanswerable ones each; with fewer, the default rule holds
RIDGE = 1.0
WRONG_ABSTENTIONS = 0.1  # share of answerable development questions that the threshold may cost


class WordWeights:
    """The weight of each word: the rarer among the passages, the more it says about a question."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        step = max(1, len(passages) // SAMPLE)
        texts = [passage_text(passage) for passage in passages[::step]]
        self._count = len(texts)
        self._frequency: dict[str, int] = {}
        for text in texts:
            for word in set(content_words(text)):
                self._frequency[word] = self._frequency.get(word, 0) + 1

    def weight(self, word: str) -> float:
        return math.log(1 + (self._count + 0.5) / (self._frequency.get(word, 0) + 0.5))

    def of_question(self, question: str) -> set[str]:
        """The content words of a question, with the compounds of neighbouring ones that a passage has."""
        joined = content_words(" ".join(compounds(WORD.findall(question.lower()))))
        return {*content_words(question), *(word for word in joined if word in self._frequency)}

    def coverage(self, question: Iterable[str], text: Iterable[str]) -> float:
        """The weighted share of the question's words that a text has."""
        words, present = set(question), set(text)
        total = sum(self.weight(word) for word in words)
        return sum(self.weight(word) for word in words & present) / total if total else 0.0


def passage_text(passage: Passage) -> str:
    """A passage with the title and headings above it."""
    return f"{passage.title}\n{passage.heading}\n{passage.text}"


def signals_of(question: str, hits: Sequence[Hit], weights: WordWeights) -> dict[str, float]:
    """The signals of a search, 0 to 1; all 0 without a hit."""
    if not hits:
        return dict.fromkeys(SIGNALS, 0.0)
    similarities = sorted((hit.similarity for hit in hits), reverse=True)
    rest = similarities[1:] or [0.0]
    words = weights.of_question(question)
    ranks = [(hit.words_rank, hit.vectors_rank) for hit in hits]
    return {
        "similarity": max(similarities[0], 0.0),
        "margin": max(similarities[0] - sum(rest) / len(rest), 0.0),
        "coverage": max(weights.coverage(words, content_words(passage_text(hit.passage))) for hit in hits),
        "agreement": float(any(a is not None and b is not None and max(a, b) <= AGREED for a, b in ranks)),
    }


class AbstentionRule(Result):
    """Weighs the signals of a search to the confidence that its passages answer the question."""

    weights: dict[str, float] = Field({"similarity": 6.0, "margin": 2.0, "coverage": 4.0, "agreement": 0.5})
    bias: float = -5.0
    threshold: float = 0.5  # of the confidence, 0 to 1
    questions: int = 0  # development questions that it is fitted on; 0: the default

    def confidence(self, signals: Mapping[str, float]) -> float:
        total = self.bias + sum(weight * signals[name] for name, weight in self.weights.items())
        return 1 / (1 + math.exp(-total))


def default_rule(method: str) -> AbstentionRule:
    """The rule without questions to fit it on. A search by words alone has no similarities."""
    return AbstentionRule(weights={"coverage": 8.0}, bias=-3.0) if method == "words" else AbstentionRule()


@dataclass(frozen=True)
class Observation:
    """The signals of one development question."""

    signals: Mapping[str, float]
    answerable: bool


def fit_rule(observations: Sequence[Observation], default: AbstentionRule) -> AbstentionRule:
    """The rule for these questions; the default when there are too few. Equal questions give an equal rule."""
    import numpy as np

    target = np.array([each.answerable for each in observations], float)
    if min(target.sum(), len(target) - target.sum(), len(target)) < MIN_QUESTIONS:
        return default
    features = np.array([[each.signals[name] for name in SIGNALS] for each in observations])
    solution = _logistic_regression(features, target)
    unseen = np.array(
        [
            _confidences(features[[at]], _logistic_regression(np.delete(features, at, 0), np.delete(target, at)))[0]
            for at in range(len(target))
        ]
    )
    return AbstentionRule(
        weights={name: round(float(value), 6) for name, value in zip(SIGNALS, solution[1:], strict=True)},
        bias=round(float(solution[0]), 6),
        threshold=round(_threshold(unseen, target), 6),
        questions=len(target),
    )


def _logistic_regression(features: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Bias and weights, by Newton's method with a ridge on standardised features; both classes weigh the same."""
    import numpy as np

    mean, scale = features.mean(0), np.maximum(features.std(0), 1e-6)
    design = np.column_stack([np.ones(len(target)), (features - mean) / scale])
    balance = np.where(target == 1, 0.5 / target.mean(), 0.5 / (1 - target.mean()))
    ridge = RIDGE * np.diag([0.0, *np.ones(features.shape[1])])
    solution = np.zeros(design.shape[1])
    for _ in range(30):
        predicted = 1 / (1 + np.exp(-design @ solution))
        gradient = design.T @ (balance * (predicted - target)) + ridge @ solution
        curvature = (design * (balance * predicted * (1 - predicted))[:, None]).T @ design + ridge
        curvature[0, 0] += 1e-6
        solution = solution - np.linalg.solve(curvature, gradient)
    weights = solution[1:] / scale
    return np.array([solution[0] - weights @ mean, *weights])


def _confidences(features: np.ndarray, solution: np.ndarray) -> np.ndarray:
    import numpy as np

    confidences: np.ndarray = 1 / (1 + np.exp(-(solution[0] + features @ solution[1:])))
    return confidences


def _threshold(confidences: np.ndarray, target: np.ndarray) -> float:
    """Where abstentions are right most often, among those that cost few answerable questions."""
    import numpy as np

    values = np.unique(confidences)
    candidates = [0.0, *((values[:-1] + values[1:]) / 2)]
    wrong = [float((confidences[target == 1] < each).mean()) for each in candidates]
    right = [float((confidences[target == 0] < each).mean()) for each in candidates]
    allowed = [at for at, share in enumerate(wrong) if share <= WRONG_ABSTENTIONS]
    return float(candidates[max(allowed, key=lambda at: (right[at] - wrong[at], at))])
