"""An extract has the sentences that answer, and cites no passage for a sentence that hardly shares a word."""

from __future__ import annotations

from tasks.knowledge.answers.abstention import WordWeights
from tasks.knowledge.answers.extract import extract_answer
from tasks.knowledge.results import Hit, Passage

TEXTS = {
    "p1": "A champion is rolled back with one command. It takes a second.",
    "p2": "Each release has a manifest. The command prints its digest.",
    "p3": "Cats eat fish.",
}
PASSAGES = [Passage(name, f"docs/{name}.md", "Guide", "", "", text) for name, text in TEXTS.items()]
HITS = [Hit(passage, 1.0 / rank, 0.5) for rank, passage in enumerate(PASSAGES, start=1)]


def test_weak_sentences_and_their_citations_are_left_out() -> None:
    extract = extract_answer("how is a champion rolled back by command?", HITS, WordWeights(PASSAGES))
    assert "A champion is rolled back with one command." in extract.text
    assert "Cats" not in extract.text
    assert [hit.passage.passage_id for hit in extract.citations] == ["p1"]


def test_two_passages_that_answer_are_both_cited() -> None:
    hits = [HITS[0], Hit(Passage("p4", "docs/p4.md", "Guide", "", "", TEXTS["p1"]), 0.4, 0.5)]
    extract = extract_answer("how is a champion rolled back by command?", hits, WordWeights(PASSAGES))
    assert [hit.passage.passage_id for hit in extract.citations] == ["p1", "p4"]


def test_a_passage_that_is_less_similar_counts_less() -> None:
    far = Hit(Passage("p4", "docs/p4.md", "Guide", "", "", TEXTS["p1"]), 0.4, 0.3)
    question = "how is a champion rolled back by command?"
    extract = extract_answer(question, [HITS[0], far], WordWeights(PASSAGES))
    assert [hit.passage.passage_id for hit in extract.citations] == ["p1"]


def test_without_similarities_each_passage_counts() -> None:
    hits = [Hit(each.passage, each.score, 0.0) for each in HITS]  # as a search by words returns them
    extract = extract_answer("how is a champion rolled back by command?", hits, WordWeights(PASSAGES))
    assert [hit.passage.passage_id for hit in extract.citations] == ["p1"]


def test_a_compound_answers_a_question_of_two_words() -> None:
    texts = {"p1": "`driftline rollback CASE` does it.", "p2": "Roll dice. The back is blue."}
    passages = [Passage(name, f"docs/{name}.md", "Guide", "", "", text) for name, text in texts.items()]
    hits = [Hit(passage, 1.0, 0.5) for passage in passages]
    weights = WordWeights(passages)
    assert weights.of_question("how do I roll back a rain bow?") - {"rol"} == {"back", "rain", "bow", "rollback"}
    assert extract_answer("how do I roll back?", hits, weights).text.startswith("`driftline rollback CASE`")
