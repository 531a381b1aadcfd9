"""Pairs that a tuned model practises on: questions on documents, with passages as they are served, and short answers.

The documents are others than those that answer: what is learned is to answer from passages, not what they say.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.core.code_digest import cache_key
from tasks.core.errors import DataError
from tasks.core.files import atomic_path, file_digest
from tasks.core.progress import mark_cached
from tasks.data.config import ChatSpec
from tasks.data.language.pairs import Pair, write_pairs
from tasks.knowledge.answers.answerer import with_passages
from tasks.knowledge.answers.relevance import Quotations
from tasks.knowledge.index.build import build_index
from tasks.knowledge.index.search import KnowledgeSearch
from tasks.knowledge.results import Hit, KnowledgeSpec, Passage
from tasks.language.messages import USER, chat_message, user_message
from tasks.train.language.model import read_pairs
from tasks.train.language.questions_on import Question, questions_on

NAME = "practice"  # folder in the state folder, and the intent of the pairs
LEAST = 40  # pairs; with fewer, nothing is learned
VALIDATION = 0.2  # share of the pairs
UNANSWERED = 0.2  # share of the questions whose passages lack the answer, so that abstaining is right
MOST_PASSAGES = 2  # before a question: with five as they are served, training would take three times as long
SEED = 0  # of the order of questions and of their worse answers
LONG = 60  # words of a rejected answer that is too long


def write_practice(
    case: str, pairs: Path, documents: Sequence[Path], *, spec: KnowledgeSpec, chat: ChatSpec, state: Path
) -> Path:
    """The folder of the pairs to practise on, train.parquet and validation.parquet; equal inputs give it once.

    pairs: folder of the case's pairs. Those to train on, with evidence in the documents, are written by hand.
    documents: Parquet files of the collections to practise on.

    Raises: DataError when the documents give too few questions.
    """
    from tasks.language.embedder import Embedder

    knowledge, written = spec.settings, pairs / "train.parquet"
    files = [file_digest(path) for path in (*([written] if written.is_file() else []), *documents)]
    options = [
        knowledge.split.digest,
        knowledge.method,
        knowledge.word_weight,
        knowledge.practice_pairs,
        chat.answer.digest,
        chat.context,
    ]
    folder = state / NAME / case / cache_key(__name__, [files, options, spec.embedder.digest])[:20]
    if folder.is_dir():
        mark_cached()
        return folder
    collections = {path.stem: path for path in documents}
    index = build_index("index", collections, knowledge, spec.embedder, state / NAME / case)
    embedder = Embedder(spec.embedder.folder, spec.embedder.tokenizer)
    search = KnowledgeSearch(index.folder, embedder, word_weight=spec.settings.word_weight)
    by_hand = _by_hand(read_pairs(written), search.passages()) if written.is_file() else []
    questions = [*by_hand, *questions_on(search.passages(), 2 * knowledge.practice_pairs)]
    practice = practise(search, questions, spec, chat)[: knowledge.practice_pairs]
    search.close()
    if len(practice) < LEAST:
        raise DataError(
            "The documents to practise on give too few questions.",
            where="knowledge.documents, those with practice: true",
            found=f"{len(practice)} of {index.passages:,} passages",
            allowed=f"at least {LEAST}",
            todo="Add documents in prose.",
        )
    random.Random(SEED).shuffle(practice)
    held = max(8, round(VALIDATION * len(practice)))
    with atomic_path(folder) as out:
        out.mkdir(parents=True)
        write_pairs(practice[held:], out / "train.parquet")
        write_pairs(practice[:held], out / "validation.parquet")
    return folder


def practise(search: KnowledgeSearch, questions: Sequence[Question], spec: KnowledgeSpec, chat: ChatSpec) -> list[Pair]:
    """A pair a question: passages as served, and the sentence that answers with its citation, or the abstention.

    A question whose passage is not among the first ones is left out. Each pair has a worse answer, for preference
    tuning: it is too long, cites nothing, abstains, or answers where it should abstain.
    """
    rng, settings, abstain = random.Random(SEED), spec.settings, str(chat.answer.abstain)
    count = min(MOST_PASSAGES, settings.passages)
    pairs = []
    for question in questions:
        hits = search.search(question.text, count=count + 1, method=settings.method)
        unanswered = rng.random() < UNANSWERED
        if unanswered:
            hits = [hit for hit in hits if hit.passage.passage_id != question.passage_id]
        shown = hits[:count]
        rng.shuffle(shown)
        ids = [hit.passage.passage_id for hit in shown]
        if not shown or not (unanswered or question.passage_id in ids):
            continue
        messages = with_passages([chat_message(USER, question.text)], shown, chat.context)
        if unanswered:
            answer, rejected = abstain, f"{question.answer} [1]"
        else:
            rank = ids.index(question.passage_id)
            answer = f"{question.answer} [{rank + 1}]"
            rejected = rng.choice([_long(shown[rank]), question.answer, abstain])
        pairs.append(Pair(tuple(messages), answer, NAME, NAME, rejected=rejected))
    return pairs


def _by_hand(rows: Sequence[dict[str, Any]], passages: Sequence[Passage]) -> list[Question]:
    """The questions of the case's own pairs whose evidence is in the passages to practise on."""
    quotations = Quotations(passages)
    questions = []
    for row in rows:
        evidence = [(document, quote) for document, quote in json.loads(row["evidence"] or "[]")]
        if row["answer"] and (relevant := quotations.relevant(evidence)):
            questions.append(Question(user_message(row["messages"]), row["answer"], relevant[0]))
    return questions


def _long(hit: Hit) -> str:
    return " ".join(hit.passage.text.split()[:LONG])
