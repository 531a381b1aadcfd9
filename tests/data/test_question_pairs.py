"""Questions on documents: their evidence, their part, and the abstention as the right answer where nothing answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest

from tasks.data.config import Answer, Pairs
from tasks.data.language.pairs import Pair, PairFormat, read_pairs
from tasks.data.language.splits import make_splits

ABSTAIN = "The documents do not say."
FORM = PairFormat(Answer(format="text", abstain=ABSTAIN))
AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
QUOTE = {"document": "docs/a.md", "quote": "Run it."}


def read(**row: Any) -> Pair:
    return read_pairs("questions", [{"prompt": "How?", "required_facts": None, **row}], FORM)[0]


def test_a_question_has_evidence_and_part() -> None:
    """Evidence is a list of documents and quotations, also as JSON text; it is enough for a question."""
    pair = read(evidence=[QUOTE], part="development")
    assert (pair.evidence, pair.part, pair.problem) == ((("docs/a.md", "Run it."),), "development", None)
    assert read(evidence='[{"document": "docs/a.md", "quote": "Run it."}]').evidence == pair.evidence
    assert pair.row()["evidence"] == '[["docs/a.md", "Run it."]]'


def test_the_right_answer_to_an_unanswerable_one_abstains() -> None:
    """Its answer is the case's abstention."""
    assert (read(unanswerable=True).answer, read(unanswerable=True).problem) == (ABSTAIN, None)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"evidence": [{"document": "docs/a.md"}]}, "evidence must be a list"),
        ({"evidence": "docs/a.md"}, "evidence must be a list"),
        ({"evidence": [QUOTE], "part": "test"}, "part must be one of train, development, evaluation"),
        ({"unanswerable": True, "required_facts": ["x"]}, "unanswerable, but has"),
        ({}, "there is no answer"),
    ],
)
def test_a_wrong_question_says_why(row: dict[str, Any], says: str) -> None:
    """It goes to the quarantine with its reason."""
    assert says in (read(**row).problem or "")


def test_unanswerable_needs_the_case_to_abstain() -> None:
    """Without answer.abstain there is no right answer."""
    row = {"prompt": "How?", "unanswerable": True, "required_facts": None}
    (pair,) = read_pairs("questions", [row], PairFormat(Answer(format="text")))
    assert "answer.abstain" in (pair.problem or "")


def test_development_never_evaluates() -> None:
    """The part decides; the rest is split by hash; a development question like an evaluated one is dropped."""
    rows = [(f"How do I {n} thing number {n}?", "evaluation" if n % 3 else "development") for n in range(30)]
    rows += [(f"Where is place {n} of them?", "") for n in range(20)]
    rows += [("How do I 1 thing number 1 ?", "development")]
    with duckdb.connect() as db:
        db.execute("CREATE TABLE questions (prompt TEXT, part TEXT, required_facts TEXT[])")
        db.executemany("INSERT INTO questions VALUES (?, ?, ['x'])", rows)
        splits, report = make_splits(
            db, Pairs(sources=("questions",)), Answer(format="text", abstain=ABSTAIN), AS_OF, tuned=False
        )
    parts = {name: {pair.part for pair in pairs} for name, pairs in splits.items()}
    assert parts["development"] == {"development"}
    assert "development" not in parts["evaluation"]
    assert len(splits["development"]) == 10
    assert sum("place" in pair.text for pair in splits["evaluation"]) in range(10, 20)
    assert report.exact + report.near + report.contaminated == 1
