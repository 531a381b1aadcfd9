"""The questions of the case handbook: their quotations stand in the docs, and none gives another away."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
QUESTIONS = ROOT / "configs" / "handbook" / "questions.jsonl"
COMMON = (
    "a about all an and any are as at be been by can did do does each for from had has have how i if in into is it its"
    " may me must my no not of on one only or our out s should so than that the their them then there these they this"
    " those to up us was we were what when where which who whom why will with would you your"
)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _questions() -> list[dict[str, Any]]:
    return [json.loads(line) for line in QUESTIONS.read_text().splitlines()]


def _document(name: str) -> Path:
    collection, _, path = name.partition("/")
    return ROOT / path if collection == "project" else ROOT / name


def _alike(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


def test_each_quotation_stands_in_its_document() -> None:
    # a change of the docs names the questions to mend
    missing = []
    for question in _questions():
        for evidence in question.get("evidence", []):
            path, quote = _document(evidence["document"]), _words(evidence["quote"])
            text = " ".join(_words(path.read_text())) if path.is_file() else ""
            if f" {' '.join(quote)} " not in f" {text} " or not 5 <= len(quote) <= 30:
                missing.append(f"{evidence['document']}: {evidence['quote']!r} of {question['prompt']!r}")
    assert not missing, "no longer in the docs, or not 5 to 30 words:\n" + "\n".join(missing)


def test_each_required_fact_stands_in_a_quotation() -> None:
    for question in _questions():
        if not question.get("unanswerable"):
            quote = question["evidence"][0]["quote"].replace("`", "").casefold()
            assert question["required_facts"]
            assert [fact for fact in question["required_facts"] if fact.casefold() not in quote] == []


def test_the_sets_have_their_sizes() -> None:
    questions = _questions()
    assert all(question["part"] in ("development", "evaluation") for question in questions)

    def count(part: str, unanswerable: bool) -> int:
        return sum(q["part"] == part and q.get("unanswerable", False) == unanswerable for q in questions)

    assert count("development", False) >= 50
    assert count("evaluation", False) >= 150
    assert count("development", True) >= 30
    assert count("evaluation", True) >= 60


def test_no_question_nearly_equals_another() -> None:
    # else thresholds and weights, chosen on development questions, would know an evaluation's
    prompts = [(question["prompt"], set(_words(question["prompt"]))) for question in _questions()]
    pairs = [(one, other) for (one, a), (other, b) in combinations(prompts, 2) if _alike(a, b) > 0.5]
    assert pairs == []


def test_no_quotation_serves_both_parts() -> None:
    parts: dict[str, set[str]] = {}
    for question in _questions():
        for evidence in question.get("evidence", []):
            parts.setdefault(" ".join(_words(evidence["quote"])), set()).add(question["part"])
    assert [quote for quote, names in parts.items() if len(names) > 1] == []


def test_questions_do_not_repeat_their_quotation() -> None:
    # a search by words must not find its answer by the question's own wording
    for question in _questions():
        for evidence in question.get("evidence", [])[:1]:
            words = set(_words(question["prompt"])) - set(_words(COMMON))
            shared = words & set(_words(evidence["quote"]))
            assert len(shared) <= 0.5 * len(words), f"{question['prompt']!r} repeats {sorted(shared)}"
