"""Promise: monitoring lists what is asked often and answered badly, and the documents that answer nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.knowledge.answers.abstention import AbstentionRule
from tasks.knowledge.answers.answerer import INDEX, SETTINGS, AnswerSettings
from tasks.knowledge.documents.document import Document, write_documents
from tasks.knowledge.index.build import write_passages
from tasks.knowledge.index.split import split_document
from tasks.knowledge.results import Passage
from tasks.monitor.language.questions import LIST, is_dislike, question_of, review_questions
from tasks.monitor.results import LoggedQuestions, QuestionReview
from tests.knowledge_base import embedder, knowledge_of

COLUMNS = ("request_id", "request", "retrieval", "feedback")
START, END = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
PASSAGES = [Passage(f"p{i}", f"pages/{'ab'[i // 2]}.md", "", "", "", "text") for i in range(4)]


def call(question: str, *passages: str, feedback: str | None = None, **retrieval: Any) -> dict[str, Any]:
    request = json.dumps({"messages": [{"role": "user", "content": question}]})
    found = {"passages": passages, "similarity": 0.5, "cited": [], "abstained": False, "grounded": None}
    return {"request_id": question, "requested_at": START, "request": request} | {
        "retrieval": json.dumps(found | retrieval),
        "feedback": feedback,
    }


def release(folder: Path, passages: list[Passage]) -> None:
    """The parts of a release that a review reads."""
    (folder / INDEX).mkdir(parents=True, exist_ok=True)
    write_passages(passages, folder / INDEX / "passages.sqlite")
    (folder / "embedder").symlink_to(embedder().folder)
    settings = AnswerSettings(knowledge=knowledge_of(), abstain="No.", threshold=AbstentionRule(), tokens=0)
    (folder / SETTINGS).write_text(settings.model_dump_json())


def review(folder: Path, calls: list[dict[str, Any]]) -> QuestionReview:
    if not (folder / INDEX / "passages.sqlite").exists():
        release(folder, PASSAGES)
    table = {name: [each[name] for each in calls] for name in COLUMNS}
    pq.write_table(pa.table({name: pa.array(values, pa.string()) for name, values in table.items()}), folder / "log")
    logged = LoggedQuestions(path=folder / "log", case="docs", release="d" * 64, start=START, end=END)
    return review_questions(folder, logged, {}, folder)


def test_open_questions_are_listed_by_frequency(tmp_path):
    """By their words, whatever their case and blanks; a question that got a good answer is not listed."""
    result = review(
        tmp_path,
        [
            call("How do I fly?", "p0", abstained=True),
            call("how do  I FLY?", "p0", abstained=True),
            call("Why?", "p1", abstained=True, grounded=False, similarity=0.9),
            call("Where?", "p1", feedback="0.2"),
            call("What?", "p0", feedback="up"),
        ],
    )
    listed = [(each.question, each.times, each.abstained, each.disliked) for each in result.open_questions]
    assert listed == [("how do i fly?", 2, 2, 0), ("where?", 1, 0, 1), ("why?", 1, 1, 0)]
    assert (result.questions, result.abstained, result.ungrounded, result.disliked) == (5, 3, 1, 1)
    assert result.similarity == 0.5
    assert (result.passages, result.unused, result.unused_documents) == (4, 2, ("pages/b.md",))
    text = (tmp_path / LIST).read_text()
    assert "| 2 | 2 | 0 | how do i fly? |" in text
    assert "- pages/b.md" in text


def test_equal_logs_give_equal_files(tmp_path):
    calls = [call("Why?", "p1", abstained=True)]
    first = review(tmp_path, calls), (tmp_path / LIST).read_bytes()
    assert (review(tmp_path, calls), (tmp_path / LIST).read_bytes()) == first


def test_a_log_without_texts_is_counted_all_the_same(tmp_path):
    """DRIFTLINE_GATEWAY_LOG=none: no question can be listed; and without a call there is nothing."""
    empty = call("Why?", "p1", abstained=True) | {"request": ""}
    result = review(tmp_path, [empty])
    assert (result.questions, result.abstained, result.open_questions) == (1, 1, ())
    result = review(tmp_path, [])
    assert (result.questions, result.similarity, result.unused) == (0, None, 4)


@pytest.mark.parametrize(
    "request_body", ["", "{", "5", "[]", "{}", '{"messages": [{}]}', '{"query": null}', '{"messages": 5}']
)
def test_an_unreadable_request_has_no_question(request_body):
    assert question_of(request_body) == ""


def test_a_search_is_a_question(tmp_path):
    assert question_of('{"query": " Roll  back "}') == "roll back"
    links = review(tmp_path, [call("[x](http://evil) | <b>", "p0", abstained=True)])
    assert links.open_questions
    assert "[x](http" not in (tmp_path / LIST).read_text()


@pytest.mark.parametrize(
    ("feedback", "dislikes"),
    [(None, False), ("up", False), ("down", True), ("0.4", True), ("1.0", False), ("x", False)],
)
def test_low_ratings_are_dislikes(feedback, dislikes):
    assert is_dislike(feedback) == dislikes


def test_documents_newer_than_the_release_are_listed(tmp_path):
    """Added, changed and removed ones by name, and the oldest by the date that they state."""
    then = [Document(f"pages/{name}.md", name, "", f"# {name}\n\nOld text.") for name in ("same", "edited", "gone")]
    split = knowledge_of().split
    release(tmp_path, [each for one in then for each in split_document(one, split, embedder().tokens)])
    old = datetime(2025, 12, 1, tzinfo=UTC)
    now = [
        replace(then[0], modified=old),
        replace(then[1], text="# edited\n\nNew text."),
        Document("pages/new.md", "new", "", "# new\n\nText.", modified=START),
    ]
    write_documents(now, tmp_path / "pages.parquet")
    pq.write_table(pa.table({name: pa.array([], pa.string()) for name in COLUMNS}), tmp_path / "log")
    logged = LoggedQuestions(path=tmp_path / "log", case="docs", release="d" * 64, start=START, end=END)
    result = review_questions(tmp_path, logged, {"pages": tmp_path / "pages.parquet"}, tmp_path)
    found = result.documents
    assert (found.added, found.changed, found.removed) == (("pages/new.md",), ("pages/edited.md",), ("pages/gone.md",))
    assert [(each.document, each.days) for each in found.oldest] == [("pages/same.md", 365), ("pages/new.md", 30)]
    assert (found.documents, found.undated) == (3, 1)
    assert "3 documents changed since the release was built" in result.summary
    text = (tmp_path / LIST).read_text()
    assert "| changed | pages/edited.md |" in text
    assert "| 365 | pages/same.md |" in text
    write_documents(then, tmp_path / "pages.parquet")
    result = review_questions(tmp_path, logged, {"pages": tmp_path / "pages.parquet"}, tmp_path)
    assert result.summary.endswith("The release has the documents as they are now")
