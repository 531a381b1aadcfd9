"""A question's quotations name the passages that answer it, and rankings are measured against them."""

from __future__ import annotations

import random

import pytest

from tasks.knowledge.answers.relevance import Quotations, ndcg_at, recall_at, reciprocal_rank
from tasks.knowledge.results import Passage


def passage(name: str, text: str, document: str = "docs/a.md") -> Passage:
    return Passage(name, document, "Title", "Heading", "", text)


QUOTATIONS = Quotations(
    [
        passage("p1", "Run `driftline  up`, then see [the\nguide](guide.md). | **Two** | three |"),
        passage("p2", "The end of one sentence of ten"),
        passage("p3", "words that a border cuts in two parts."),
        passage("p4", "Run driftline up.", "docs/b.md"),
    ]
)


@pytest.mark.parametrize(
    ("quote", "named"),
    [
        ("run driftline up", ["p1"]),  # of its document alone, whatever blanks and marks there are
        ("see the guide. Two three", ["p1"]),  # links and tables
        ("sentence of ten words that a border", ["p3"]),  # more than half of it
        ("of one sentence of ten words that a border cuts", ["p2", "p3"]),  # half of it each
        ("sentence of ten words that", []),  # half of so few words says nothing
        ("driftline down", []),
        ("un driftline", []),  # whole words only
        ("...", []),
    ],
)
def test_a_quotation_names_the_passages_that_have_it(quote: str, named: list[str]) -> None:
    """Whole quotations before halves; a border may cut one."""
    assert QUOTATIONS.passages(("docs/a.md", quote)) == named


def test_quotations_that_no_longer_stand_are_listed() -> None:
    """Each with its question, and whether the document or the words are missing."""
    evidence = [("docs/a.md", "run driftline up"), ("docs/a.md", "run driftline down"), ("docs/c.md", "run")]
    assert QUOTATIONS.missing({"How?": evidence}) == [
        "'How?': docs/a.md does not say 'run driftline down'",
        "'How?': docs/c.md is no document",
    ]


def test_metrics_equal_those_by_hand() -> None:
    """Recall, reciprocal rank and nDCG of one ranking, computed on paper."""
    ranked, relevant = ["a", "x", "b", "y", "z", "c"], ["b", "c", "d"]
    assert (recall_at(ranked, relevant, 2), recall_at(ranked, relevant, 3)) == (0, 1)
    assert reciprocal_rank(ranked, relevant) == pytest.approx(1 / 3)
    assert ndcg_at(ranked, relevant, 10) == pytest.approx((0.5 + 0.3562071871) / (1 + 0.6309297536 + 0.5))
    assert (recall_at([], relevant, 5), reciprocal_rank([], relevant), ndcg_at([], relevant, 10)) == (0, 0, 0)


def test_metrics_equal_those_of_trec_eval() -> None:
    """A thousand random rankings, held against pytrec-eval."""
    pytrec_eval = pytest.importorskip("pytrec_eval")
    draw = random.Random(0)
    names = [f"p{at}" for at in range(40)]
    relevant = {str(at): draw.sample(names, draw.randint(1, 12)) for at in range(1000)}
    ranked = {at: draw.sample(names, draw.randint(1, 40)) for at in relevant}
    judged = {at: dict.fromkeys(each, 1) for at, each in relevant.items()}
    run = {at: {name: float(-place) for place, name in enumerate(each)} for at, each in ranked.items()}
    expected = pytrec_eval.RelevanceEvaluator(judged, {"success_5", "recip_rank", "ndcg_cut_10"}).evaluate(run)
    for at, each in expected.items():
        assert recall_at(ranked[at], relevant[at], 5) == pytest.approx(each["success_5"])
        assert reciprocal_rank(ranked[at], relevant[at]) == pytest.approx(each["recip_rank"])
        assert ndcg_at(ranked[at], relevant[at], 10) == pytest.approx(each["ndcg_cut_10"])
