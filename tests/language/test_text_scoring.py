"""Scores of answers in prose: overlap with a reference, facts, refusals, and the metrics that they add up to."""

from __future__ import annotations

import pytest

from tasks.language.answer_scoring import reward, summarise
from tasks.language.text_scoring import TextScorer, normalize, rouge_l, states, token_f1

SCORER = TextScorer("I don't know.")


def test_case_articles_and_punctuation_do_not_count():
    """An answer is exact whatever its case, articles and punctuation."""
    score = SCORER.score("the capital is PARIS", "The capital is Paris.", "")
    assert score.exact
    assert score.token_f1 == score.rouge_l == 1
    assert normalize("A cat, the dog!") == "cat dog"


@pytest.mark.parametrize(
    ("text", "expected", "f1", "rouge"),
    [
        ("b a", "a b", 1.0, 0.5),  # the order counts for ROUGE-L alone
        ("x y", "a b", 0.0, 0.0),
        ("a b c d", "a b", 2 / 3, 2 / 3),
        ("b b b", "b", 0.5, 0.5),
        ("", "a", 0.0, 0.0),
    ],
)
def test_overlap_with_the_reference(text, expected, f1, rouge):
    """Token F1 counts common words, ROUGE-L the longest common subsequence."""
    assert token_f1(text.split(), expected.split()) == pytest.approx(f1)
    assert rouge_l(text.split(), expected.split()) == pytest.approx(rouge)


@pytest.mark.parametrize(
    ("text", "fact", "expected"),
    [
        ("It opens at 9:30.", "9:30", True),
        ("It opens at 19:30.", "9:30", False),  # whole words
        ("It's in the New York office", "new york", True),
        ("Call +1 555 0100", r"/\+\d[\d ]+/", True),
        ("Call us", r"/\+\d[\d ]+/", False),
    ],
)
def test_a_fact_is_stated_in_whole_words(text, fact, expected):
    """A fact is a text, or between slashes a regular expression."""
    assert states(text, fact) is expected


def test_metrics_of_prose():
    """Facts are counted over all answers; metrics of JSON are left out."""
    scores = [
        SCORER.score("Paris, in France", "", "", ["Paris", "France"]),
        SCORER.score("Rome", "", "", ["Paris", "France"], ["Rome"]),
        SCORER.score("I don't know", "I don't know.", ""),
    ]
    metrics = summarise(scores)
    assert metrics["required_facts_recall"] == 0.5
    assert metrics["forbidden_rate"] == 1.0
    assert metrics["abstention_recall"] == 1.0
    assert metrics["wrong_abstention_rate"] == 0.0
    assert not {"json_validity", "schema_validity", "field_f1"} & set(metrics)


def test_only_the_right_answer_earns_the_whole_reward():
    """The reward grows with the overlap; 1 is for the exact answer."""
    right, near, far = (reward(SCORER.score(text, "It is red.", "")) for text in ("It is red", "red", "no idea"))
    assert 1.0 == right > near > far == 0.0


def test_a_loop_is_repetitive():
    """The same words again and again count as repetition."""
    assert SCORER.score("ha " * 40, "", "").repeated
