"""Documents are split, indexed and found, by words, vectors and both."""

import pytest

from tasks.knowledge.config import Documents, Knowledge
from tasks.knowledge.index.build import embedded_text, sentence_texts
from tasks.knowledge.index.search import KnowledgeSearch, words_query
from tests.knowledge_base import EMBEDDER, embedder, indexed, write_pages

PAGES = {
    "cats.md": "# Cats\n\nCats purr when they are content.\n\n## Food\n\nA cat eats fish and meat, twice a day.\n",
    "boats.md": "# Boats\n\nA boat floats.\n\n## Sails\n\n|sail|area|\n|---|---|\n|jib|12 m2|\n|main|30 m2|\n",
}


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    folder = write_pages(tmp_path_factory.mktemp("case"), PAGES)
    documents = {"open": Documents(uri="file://pages/cats.md", url="https://example.com/{path}")}
    documents["crew"] = Documents(uri="file://pages/boats.md", labels=("crew",))
    return KnowledgeSearch(indexed(folder, Knowledge(documents=documents, embedder=EMBEDDER)).folder, embedder())


@pytest.mark.parametrize("method", ["hybrid", "words", "vectors"])
def test_the_passage_that_answers_comes_first(search, method):
    hit = search.search("What does a cat eat?", method=method)[0]
    assert (hit.passage.document, hit.passage.heading) == ("open/cats.md", "Food")
    assert hit.passage.url == "https://example.com/cats.md#food"


@pytest.mark.parametrize(
    "question", ['"', "NEAR(cat", "title:cat", "cat*", "-cat", "(", "cat AND", "", "''; DROP", "^"]
)
def test_no_question_is_read_as_a_query(search, question):
    """What means something in FTS5's language is a word like any other."""
    assert len(search.search(question)) == len(search.passages())


def test_one_sentence_that_answers_counts_for_its_passage(search):
    (hit,) = [hit for hit in search.search("How large is the jib?") if hit.passage.heading == "Sails"]
    question, whole, *sentences = embedder().encode(
        ["How large is the jib?", embedded_text(hit.passage), *sentence_texts(hit.passage)]
    )
    nearest = max(float(question @ sentence) for sentence in sentences)
    assert hit.similarity == pytest.approx(0.7 * nearest + 0.3 * float(question @ whole), abs=2e-3)


def test_neighbouring_words_are_searched_as_one_too():
    """Documents write rollback, backup and login where people ask how to roll back, back up and log in."""
    assert words_query("how do I roll back?") == '"roll" OR "back" OR "rollback"'


def test_stop_words_count_only_alone():
    assert words_query("What is the jib?") == '"jib"'
    assert words_query("What is it?") == '"what" OR "is" OR "it"'


@pytest.mark.parametrize(("labels", "expected"), [(None, True), (frozenset({"crew", "x"}), True), (frozenset(), False)])
@pytest.mark.parametrize("method", ["hybrid", "words", "vectors"])
def test_labelled_passages_need_a_label(search, labels, expected, method):
    hits = search.search("area of the jib sail", labels=labels, method=method)
    assert any(hit.passage.document == "crew/boats.md" for hit in hits) == expected


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_words_may_weigh_more_than_vectors(tmp_path, weight):
    """The score of a hybrid search is the weighted sum of reciprocal ranks, and half of that of its document."""
    documents = {"docs": Documents(uri="file://pages/*.md")}
    index = indexed(write_pages(tmp_path, PAGES), Knowledge(documents=documents, embedder=EMBEDDER))
    hits = KnowledgeSearch(index.folder, embedder(), word_weight=weight).search("What does a cat eat?")
    for hit in hits:
        words = 1 / (10 + hit.words_rank) if hit.words_rank else 0.0
        vectors = 1 / (10 + hit.vectors_rank) if hit.vectors_rank else 0.0
        document = 1 / (10 + (1 if hit.passage.document == "docs/cats.md" else 2))
        assert hit.score == pytest.approx(2 * (weight * words + (1 - weight) * vectors) + document / 2)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
