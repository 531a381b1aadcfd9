"""Answers made of sentences of the passages: the extractive way, without a model's own words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tasks.knowledge.answers.abstention import WordWeights, passage_text
from tasks.knowledge.results import Hit
from tasks.language.content_words import content_words, sentences

MAX_WORDS = 80  # of an answer
MAX_SENTENCES = 6
LEAST_SHARE = 0.5  # of the best sentence's score: weaker ones rarely answer, and each adds a citation
RANK_DECAY = 0.8  # how much less a sentence of the next passage counts
NEARNESS = 2  # power of a passage's similarity, as a share of the highest, by which its sentences count


@dataclass(frozen=True)
class Extract:
    """Sentences of passages, in the order of the passages, and the hits that they come from."""

    text: str
    citations: tuple[Hit, ...]


@dataclass(frozen=True)
class _Candidate:
    rank: int  # of its passage
    place: int  # in its passage
    text: str
    score: float


def extract_answer(question: str, hits: Sequence[Hit], weights: WordWeights) -> Extract:
    """The sentences that share most with the question, by the weights of the words, in the passages most similar to it.

    Equal inputs give equal answers.
    """
    words = weights.of_question(question)
    nearest = max((hit.similarity for hit in hits), default=0.0)
    candidates = [
        replace(candidate, score=candidate.score * _nearness(hit, nearest) * RANK_DECAY**rank)
        for rank, hit in enumerate(hits)
        for candidate in _candidates(words, rank, hit, weights)
    ]
    chosen: list[_Candidate] = []
    length = 0
    for candidate in sorted(candidates, key=lambda each: (-each.score, each.rank, each.place)):
        if chosen and candidate.score < LEAST_SHARE * chosen[0].score:
            break
        size = len(candidate.text.split())
        if len(chosen) < MAX_SENTENCES and (not chosen or length + size <= MAX_WORDS):
            chosen.append(candidate)
            length += size
    chosen.sort(key=lambda each: (each.rank, each.place))
    ranks = dict.fromkeys(each.rank for each in chosen)
    text = "\n".join(each.text for each in chosen)
    return Extract(text, tuple(hits[rank] for rank in ranks))


def _candidates(words: set[str], rank: int, hit: Hit, weights: WordWeights) -> list[_Candidate]:
    """The sentences of a passage; the words of its headings and of its neighbours count a little for each."""
    units = sentences(hit.passage.text)
    stems = [frozenset(content_words(unit)) for unit in units]
    around = weights.coverage(words, content_words(passage_text(hit.passage)))
    scored = []
    for place, (unit, own) in enumerate(zip(units, stems, strict=True)):
        if unit.startswith("#") or not own:
            continue
        beside = [weights.coverage(words, stems[at]) for at in (place - 1, place + 1) if 0 <= at < len(stems)]
        score = weights.coverage(words, own) + 0.25 * max(beside, default=0.0) + 0.5 * around
        scored.append(_Candidate(rank, place, unit, score))
    return scored


def _nearness(hit: Hit, nearest: float) -> float:
    """How much the sentences of a passage count, 0 to 1; a search by words alone knows no similarities."""
    return (max(hit.similarity, 0.0) / nearest) ** NEARNESS if nearest > 0 else 1.0
