"""Answers from passages: what evaluation and service do between a question and its answer, on one path.

`prepare` searches, and either finishes the answer (an abstention, or sentences of the passages) or makes the messages
for the model. `finish` checks what the model answered, and adds its citations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from tasks.core.config import Result
from tasks.guard.files import open_guard
from tasks.knowledge.answers.abstention import AbstentionRule, WordWeights, passage_text, signals_of
from tasks.knowledge.answers.extract import extract_answer
from tasks.knowledge.config import Knowledge
from tasks.knowledge.index.guarded_search import GuardedSearch
from tasks.knowledge.index.search import KnowledgeSearch
from tasks.knowledge.results import Hit
from tasks.language.answer_scoring import is_refusal
from tasks.language.content_words import content_words, sentences
from tasks.language.groundedness import supported_share, unsupported
from tasks.language.messages import USER, chat_message
from tasks.language.passages import BEGIN, END, with_fence
from tasks.language.text_scoring import normalize

if TYPE_CHECKING:
    from tasks.language.embedder import Embedder

AnswerBy: TypeAlias = Literal["model", "extract"]
SETTINGS, INDEX = "answering.json", "knowledge"  # in the folder of a candidate or release
NO_PASSAGE = "no passage answers the question"
NOT_GROUNDED = "the answer states what stands in no passage"
BY_MODEL = "the model abstains"
CHARACTERS = 2.5  # of a token, at least, over a text
FENCE = re.compile(r"<(/?)\s*(passage)", re.IGNORECASE)
CONTROL = re.compile(r"<(?=\|)|(?<=\|)>")  # of tokens such as <|im_end|>, which would end the message
CITED = re.compile(r"\[(\d{1,2})\]")


@dataclass(frozen=True)
class Answer:
    """An answer with the passages that it comes from."""

    text: str
    citations: tuple[Hit, ...] = ()
    grounded: bool = True  # of the text before it was replaced
    abstained: bool = False
    reason: str = ""  # why it abstains


@dataclass(frozen=True)
class Prepared:
    """A question with its passages, and either the messages for the model or a finished answer."""

    question: str
    hits: tuple[Hit, ...]
    confidence: float  # that the passages answer, 0 to 1
    messages: tuple[dict[str, str], ...] | None
    answer: Answer | None


class AnswerSettings(Result):
    """All that decides the answers of a candidate or release, beside its index, embedder and model."""

    knowledge: Knowledge
    abstain: str  # the answer where no passage answers
    threshold: AbstentionRule
    tokens: int  # of the messages for the model; 0: no limit


def open_answerer(folder: Path, embedder: Embedder, *, answer_by: AnswerBy | None = None) -> Answerer:
    """The answerer of a candidate's or release's folder; `answer_by` replaces its own way.

    Raises: DataError when the index is damaged, or another embedder built it.
    """
    settings = AnswerSettings.model_validate_json((folder / SETTINGS).read_bytes())
    way = {"answer_by": answer_by} if answer_by else {}
    guard, word_weight = open_guard(folder), settings.knowledge.word_weight
    return Answerer(
        GuardedSearch(folder / INDEX, embedder, guard, word_weight=word_weight),
        settings.knowledge.model_copy(update=way),
        settings.abstain,
        settings.threshold,
        tokens=settings.tokens,
    )


class Answerer:
    """Answers questions from passages. As thread-safe as its search."""

    def __init__(
        self, search: KnowledgeSearch, knowledge: Knowledge, abstain: str, threshold: AbstentionRule, *, tokens: int = 0
    ) -> None:
        """`abstain` is the answer where no passage answers; `tokens` limits the model's messages (0: no limit)."""
        self._search = search
        self._knowledge = knowledge
        self._abstain = abstain
        self._rule = threshold
        self._tokens = tokens
        self._weights = WordWeights(search.passages())

    def signals(self, question: str, labels: frozenset[str] | None = None) -> dict[str, float]:
        """The signals of a question's search, by which the rule decides whether to abstain."""
        return signals_of(question, self._hits(question, labels), self._weights)

    def prepare(self, messages: Sequence[Mapping[str, str]], labels: frozenset[str] | None = None) -> Prepared:
        """Search passages for the last message of the user.

        When these don't answer, and the user wrote before, the last two messages are searched together: a follow-up
        question alone often says little.
        """
        turns = [str(message["content"]) for message in messages if message["role"] == USER]
        prepared = self._look_up(turns[-1] if turns else "", labels)
        if prepared.confidence < self._rule.threshold and len(turns) > 1:
            both = self._look_up(f"{turns[-2]}\n{turns[-1]}", labels)
            prepared = replace(both, question=turns[-1]) if both.confidence > prepared.confidence else prepared
        if prepared.confidence < self._rule.threshold:
            return replace(prepared, answer=self._abstention(NO_PASSAGE))
        if self._knowledge.answer_by == "extract":
            extract = extract_answer(prepared.question, prepared.hits, self._weights)
            return replace(prepared, answer=Answer(extract.text, extract.citations))
        return replace(prepared, messages=tuple(with_passages(messages, prepared.hits, self._tokens)))

    def finish(self, prepared: Prepared, text: str = "") -> Answer:
        """The answer of a prepared question; `text` is the model's, if its messages went to a model."""
        if prepared.answer is not None:
            return prepared.answer
        if not text.strip() or is_refusal(text) or normalize(text) == normalize(self._abstain):
            return self._abstention(BY_MODEL)
        citations = cite(text, prepared.hits)
        texts = [passage_text(hit.passage) for hit in citations]
        grounded = is_grounded(text, texts)
        if not grounded and self._knowledge.grounded:
            return replace(self._abstention(NOT_GROUNDED), grounded=False)
        return Answer(text, citations, grounded=grounded)

    def _look_up(self, question: str, labels: frozenset[str] | None) -> Prepared:
        hits = self._hits(question, labels)
        confidence = self._rule.confidence(signals_of(question, hits, self._weights)) if hits else 0.0
        return Prepared(question, hits, confidence, None, None)

    def _hits(self, question: str, labels: frozenset[str] | None) -> tuple[Hit, ...]:
        if not question.strip():
            return ()
        settings = self._knowledge
        return tuple(self._search.search(question, count=settings.passages, method=settings.method, labels=labels))

    def _abstention(self, reason: str) -> Answer:
        return Answer(self._abstain, abstained=True, reason=reason)


def is_grounded(answer: str, passages: Sequence[str]) -> bool:
    """Whether all numbers, names and commands of an answer, and the words of most sentences, stand in passages."""
    return not unsupported(answer, passages) and supported_share(answer, passages) >= 0.5


def cite(answer: str, hits: Sequence[Hit]) -> tuple[Hit, ...]:
    """The hits that an answer names as [1], [2]; without such marks, the best supporting one of each sentence."""
    named = [int(number) for number in CITED.findall(answer)]
    if valid := [number for number in dict.fromkeys(named) if 1 <= number <= len(hits)]:
        return tuple(hits[number - 1] for number in valid)
    chosen = {_best(sentence, hits) for sentence in sentences(answer)} if hits else set()
    return tuple(hits[rank] for rank in sorted(chosen))


def _best(sentence: str, hits: Sequence[Hit]) -> int:
    words = set(content_words(sentence))
    texts = [passage_text(hit.passage) for hit in hits]
    return min(
        range(len(hits)),
        key=lambda at: (len(unsupported(sentence, [texts[at]])), -len(words & set(content_words(texts[at]))), at),
    )


def with_passages(messages: Sequence[Mapping[str, str]], hits: Sequence[Hit], tokens: int = 0) -> list[dict[str, str]]:
    """The messages with the passages before the user's last one, as many as fit into so many tokens."""
    last = max((at for at, message in enumerate(messages) if message["role"] == USER), default=len(messages) - 1)
    room = tokens * CHARACTERS - sum(len(message["content"]) for message in messages) if tokens else float("inf")
    before, after = [dict(each) for each in messages[:last]], [dict(each) for each in messages[last + 1 :]]
    content = with_fence(fenced_passages(hits, room), str(messages[last]["content"]))
    return [*before, chat_message(USER, content), *after]


def fenced_passages(hits: Sequence[Hit], characters: float = float("inf")) -> str:
    """Passages as data: each between <passage> marks, which no text within can open or close."""
    blocks: list[str] = []
    for number, hit in enumerate(hits, start=1):
        passage = hit.passage
        title = " > ".join(filter(None, (passage.title, passage.heading)))
        block = f'{BEGIN}number="{number}" of="{_as_data(title, one_line=True)}">\n{_as_data(passage.text)}\n{END}'
        characters -= len(block)
        if blocks and characters < 0:
            break
        blocks.append(block)
    return "\n".join(blocks)


def _as_data(text: str, *, one_line: bool = False) -> str:
    """A text that can't leave its place: no mark of a passage, no control token of a chat template."""
    text = FENCE.sub(r"< \1\2", CONTROL.sub(lambda match: f" {match[0]} ", text))
    return " ".join(text.replace('"', "'").split()) if one_line else text
