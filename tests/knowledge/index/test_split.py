"""Documents are split at headings and blocks, within the limit of tokens."""

import pytest

from tasks.knowledge.config import Splitter
from tasks.knowledge.documents.document import Document
from tasks.knowledge.documents.markdown import plain, sections
from tasks.knowledge.index.split import split_document

TABLE = "| key | value |\n|---|---|\n" + "".join(f"| k{n} | the value number {n} |\n" for n in range(30))
CODE = "```sh\n" + "".join(f"command --number {n}\n" for n in range(6)) + "```\n"
TEXT = f"""Before.

# Guide

Intro text.

## Set up

Do *this* first. See [the docs](https://example.com/a_(b)).

{CODE}
### Details

{TABLE}
## Set up

Again.
"""


def count(texts):
    return [len(text.split()) for text in texts]


def split(text, **settings):
    document = Document("docs/a.md", "Guide", "https://x.org/a", text, ("staff",))
    return split_document(document, Splitter(**settings), count)


def test_passages_know_their_headings_and_anchors():
    """The path of headings below the title, and anchors as GitHub makes them: a repeated heading is numbered."""
    passages = split(TEXT, tokens=200)
    assert [(p.heading, p.url) for p in passages] == [
        ("", "https://x.org/a"),
        ("", "https://x.org/a#guide"),
        ("Set up", "https://x.org/a#set-up"),
        ("Set up > Details", "https://x.org/a#details"),
        ("Set up > Details", "https://x.org/a#details"),
        ("Set up", "https://x.org/a#set-up-1"),
    ]
    assert {p.labels for p in passages} == {("staff",)}


def test_text_stays_as_it_stands():
    """Each passage is a part of the document, but for the head of a table that is torn; nothing is lost."""
    passages = split(TEXT, tokens=40)
    head = TABLE[: TABLE.index("| k0")]
    assert all(p.text.removeprefix(head) in TEXT for p in passages)
    words = [word for p in passages for word in p.text.removeprefix(head).split()]
    headings = ["#", "Guide", "##", "Set", "up", "###", "Details"]
    assert not [word for word in TEXT.replace(head, "").split() if word not in [*words, *headings]]


@pytest.mark.parametrize("tokens", [16, 40, 120])
def test_passages_are_within_the_limit(tokens):
    head = len(["|", "key", "|", "value", "|", "|---|---|"])
    assert max(count([p.text for p in split(TEXT, tokens=tokens)])) <= tokens + head
    assert max(count([p.text for p in split("word " * 500, tokens=tokens)])) <= tokens


def test_code_and_rows_are_not_torn():
    """A block that fits is whole; a table that does not is cut between rows, and each part has its head."""
    passages = split(TEXT, tokens=40)
    assert any(CODE.strip() in p.text for p in passages)
    parts = [p.text for p in passages if p.heading == "Set up > Details"]
    assert len(parts) > 1
    assert all(part.startswith("| key | value |\n|---|---|\n| k") and part.endswith(" |") for part in parts)


def test_headings_in_code_are_none():
    passages = split("# A\n\n```\n# comment\n```\n\ntext\n", tokens=50)
    assert [p.text for p in passages] == ["```\n# comment\n```\n\ntext"]


def test_equal_passages_have_ids_of_their_own():
    ids = [p.passage_id for p in split("# A\n\nsame\n\n# A\n\nsame\n", tokens=50)]
    assert len(ids) == len(set(ids)) == 2
    assert ids == [p.passage_id for p in split("# A\n\nsame\n\n# A\n\nsame\n", tokens=50)]


def test_overlap_repeats_the_end_of_the_passage_before():
    passages = split("word " * 30 + "last. " + "other " * 30, tokens=31, overlap=3)
    assert passages[1].text.startswith("word word last. other")


def test_without_headings_sections_are_joined():
    assert len(split(TEXT.replace(TABLE, ""), tokens=200, headings=False)) == 1


def test_plain_is_what_a_reader_sees():
    assert plain("- **Bold** `code` [link](http://a.b/c_(d)) | x | y |\n|---|---|\n> quote") == (
        "Bold code link x y quote"
    )
    assert [s.anchor for s in sections("# Über `--as-of`: why?\n\nx\n\n## A {#own}\n\ny\n")] == [
        "über---as-of-why",
        "own",
    ]
