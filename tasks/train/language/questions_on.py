"""Questions with answers from documents, by patterns of sentences: what a tuned model practises on."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tasks.knowledge.documents.markdown import plain
from tasks.knowledge.results import Passage
from tasks.language.content_words import content_words, sentences

MIN_WORDS, MAX_WORDS = 6, 32  # of an answer
PER_PASSAGE = 2
NO_SUBJECT = re.compile(
    r"(it|this|that|they|these|those|there|which|what|we|you|often|here|one|each|both|required)\b", re.I
)
BASE_FORMS = {"does": "do", "has": "have", "is": "be"}
VERBS = "returns|creates|contains|requires|supports|stores|writes|reads|needs|means|provides|runs|shows|adds|sets"


@dataclass(frozen=True)
class Question:
    """A question, the sentence of a passage that answers it, and the passage."""

    text: str
    answer: str
    passage_id: str


@dataclass(frozen=True)
class _Pattern:
    sentence: re.Pattern[str]
    wordings: tuple[str, ...]  # with the groups of the sentence


def _base(verb: str) -> str:
    """The base form of a verb in the third person."""
    return BASE_FORMS.get(verb, verb.removesuffix("es") if verb.endswith("sses") else verb.removesuffix("s"))


def _lower(text: str) -> str:
    """A text without the capital of its first word, unless that is a name."""
    return text[:1].lower() + text[1:] if text[1:2].islower() or text[1:2] == " " else text


PATTERNS = (
    _Pattern(
        re.compile(r"To (?P<goal>[a-z][^,:;]{8,60}), (?:use|run|call|set|add|pass|create|install)\b.+"),
        ("How do I {goal}?", "How can I {goal}?", "What is the way to {goal}?"),
    ),
    _Pattern(
        re.compile(r"(?:Use|Run|Call|Set|Add|Pass|Create|Install) .{3,60}? to (?P<goal>[a-z][^,:;.]{8,60})[.,;:].*"),
        ("How do I {goal}?", "I want to {goal}. How?", "What do I do to {goal}?"),
    ),
    _Pattern(re.compile(r"If (?P<case>[^,]{8,60}), .+"), ("What happens if {case}?", "What do I do if {case}?")),
    _Pattern(re.compile(r"When (?P<case>[^,]{8,60}), .+"), ("What happens when {case}?",)),
    _Pattern(
        re.compile(r"(?P<what>(?:The |A |An |Each )?[\w`.-]+(?: [\w`.-]+){0,3}) is (?!not\b).+"),
        ("What is {what}?",),
    ),
    _Pattern(
        re.compile(r"(?P<what>(?:The |A |An |Each )?[\w`.-]+(?: [\w`.-]+){0,3}) are (?!not\b).+"),
        ("What are {what}?",),
    ),
    _Pattern(
        re.compile(rf"(?P<what>(?:The |A |An )?[\w`.-]+(?: [\w`.-]+){{0,3}}) (?P<verb>{VERBS})\b.+"),
        ("What does {what} {verb}?",),
    ),
)


def questions_on(passages: Sequence[Passage], count: int, seed: int = 0) -> list[Question]:
    """At most so many questions, a few of each passage, in an order fixed by the seed."""
    rng = random.Random(seed)
    order = rng.sample(range(len(passages)), len(passages))
    questions: dict[str, Question] = {}
    for at in order:
        of_passage = [each for each in _questions(passages[at], rng) if each.text.lower() not in questions]
        for question in of_passage[:PER_PASSAGE]:
            questions[question.text.lower()] = question
        if len(questions) >= count:
            break
    return list(questions.values())[:count]


def _questions(passage: Passage, rng: random.Random) -> Iterator[Question]:
    for unit in sentences(passage.text):
        answer = plain(unit)
        if not (MIN_WORDS <= len(answer.split()) <= MAX_WORDS) or not answer.endswith("."):
            continue
        for pattern in PATTERNS:
            if match := pattern.sentence.fullmatch(answer):
                if NO_SUBJECT.match(match.groupdict().get("what") or ""):
                    break
                parts = {name: _lower(value) for name, value in match.groupdict().items()}
                if "verb" in parts:
                    parts["verb"] = _base(parts["verb"])
                text = rng.choice(pattern.wordings).format(**parts)
                if len(set(content_words(text))) >= 2:
                    yield Question(text, answer, passage.passage_id)
                break
