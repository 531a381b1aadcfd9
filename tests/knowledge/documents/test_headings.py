"""Headings of documents are the messages of a case without questions."""

from __future__ import annotations

from tasks.knowledge.documents.document import Document, write_documents
from tasks.knowledge.documents.headings import MOST, headings_of


def document(name: str, text: str) -> Document:
    return Document(document_id=f"docs/{name}.md", title=name.capitalize(), url="", text=text)


def test_documents_take_turns(tmp_path):
    """A long document does not crowd out a short one; one without headings has its title."""
    long = "# Guide\n\nText.\n" + "".join(f"\n## Part {n}\n\nText.\n" for n in range(2 * MOST))
    write_documents([document("guide", long), document("note", "Only text.")], tmp_path / "docs.parquet")
    headings = headings_of({"docs": tmp_path / "docs.parquet"})
    assert headings[:3] == ("Guide", "Note", "Guide: Part 0")
    assert len(headings) == MOST
