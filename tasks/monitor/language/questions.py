"""What is asked of a knowledge base, and where its documents have no answer: a list for who writes them."""

from __future__ import annotations

import contextlib
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tasks.core.display import escape_markdown
from tasks.core.files import write_text
from tasks.knowledge.answers.answerer import INDEX
from tasks.language.messages import USER
from tasks.monitor.language import documents as document_review
from tasks.monitor.language.documents import passages_by_document, review_documents
from tasks.monitor.results import LoggedQuestions, OpenQuestion, QuestionReview

REVIEW, LIST = "questions.json", "questions.md"  # files of a review
LISTED = 20  # questions and documents of the list
MAX_LENGTH = 200  # characters of a listed question


def review_questions(
    release: Path, logged: LoggedQuestions, documents: Mapping[str, Path], folder: Path
) -> QuestionReview:
    """Review the logged questions of a release's folder, and write the review; equal inputs give equal files.

    documents: Parquet file of each collection, as the case's newest snapshot has them.
    """
    import pyarrow.parquet as pq

    rows = pq.read_table(logged.path).to_pylist()
    retrievals = [json.loads(row["retrieval"]) for row in rows]
    by_document = passages_by_document(release / INDEX)
    owners = {passage: document for document, passages in by_document.items() for passage in passages}
    used = {passage for each in retrievals for passage in each["passages"]}
    used_documents = {owners[passage] for passage in used & owners.keys()}
    similarities = [each["similarity"] for each in retrievals if each["similarity"] is not None]
    review = QuestionReview(
        case=logged.case,
        release=logged.release,
        start=logged.start,
        end=logged.end,
        questions=len(rows),
        abstained=sum(each["abstained"] for each in retrievals),
        ungrounded=sum(each["grounded"] is False for each in retrievals),
        disliked=sum(is_dislike(row["feedback"]) for row in rows),
        similarity=round(statistics.median(similarities), 4) if similarities else None,
        passages=len(owners),
        unused=len(owners.keys() - used),
        unused_documents=tuple(sorted(by_document.keys() - used_documents)[:LISTED]),
        open_questions=open_questions(zip(rows, retrievals, strict=True)),
        documents=review_documents(release, documents, logged.end),
        folder=folder,
    )
    write_text(folder / REVIEW, review.model_dump_json(indent=1, exclude={"folder"}) + "\n")
    write_text(folder / LIST, as_markdown(review))
    return review


def open_questions(calls: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> tuple[OpenQuestion, ...]:
    """The questions that got an abstention or a dislike, by their words; those that are asked most come first."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row, retrieval in calls:
        if question := question_of(row["request"]):
            disliked = int(is_dislike(row["feedback"]))
            counts[question].update(times=1, abstained=int(retrieval["abstained"]), disliked=disliked)
    listed = [
        OpenQuestion(question=question[:MAX_LENGTH], **count)
        for question, count in counts.items()
        if count["abstained"] or count["disliked"]
    ]
    return tuple(sorted(listed, key=lambda each: (-each.times, each.question))[:LISTED])


def question_of(request: str) -> str:
    """The query, or the user's last message, of a logged request; empty where the log has none."""
    with contextlib.suppress(ValueError, TypeError, AttributeError, LookupError):
        body = json.loads(request)
        texts = [each["content"] for each in body.get("messages", ()) if each["role"] == USER]
        text = body["query"] if "query" in body else texts[-1]
        return " ".join(text.lower().split())
    return ""


def is_dislike(feedback: str | None) -> bool:
    """Whether a rating, down or a score below .5, says that the answer was bad."""
    with contextlib.suppress(ValueError):
        return feedback == "down" or (feedback not in (None, "up") and float(feedback) < 0.5)
    return False


def as_markdown(review: QuestionReview) -> str:
    """The review for a person."""
    best = "" if review.similarity is None else f" Median similarity of the best passage: {review.similarity}."
    lines = [
        f"# Questions to {review.case}, {review.start:%Y-%m-%d} to {review.end:%Y-%m-%d}",
        f"{review.summary}.{best}",
        f"{review.unused:,} of {review.passages:,} passages were in no result.",
    ]
    if review.open_questions:
        rows = [
            f"| {each.times} | {each.abstained} | {each.disliked} | {escape_markdown(each.question)} |"
            for each in review.open_questions
        ]
        head = ["| times | abstained | disliked | question |", "|---|---|---|---|"]
        lines += ["## Asked often, answered badly", "\n".join([*head, *rows])]
    if review.unused_documents:
        names = "\n".join(f"- {escape_markdown(name)}" for name in review.unused_documents)
        lines += ["## Documents in no result", names]
    lines += document_review.as_markdown(review.documents)
    return "\n\n".join(lines) + "\n"
