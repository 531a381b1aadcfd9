"""The settings of a case for its knowledge base."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from tasks.core.config import Result, Section, Text
from tasks.data.config import Embedder, Expectation, Source
from tasks.knowledge.labels import Label

DOCUMENTS = "documents"  # their name as a source, in a snapshot too


class Documents(Section):
    """A collection of documents: files, or the rows of a source of the case."""

    uri: str | None = Field(
        None,
        pattern=r"^([a-z][a-z0-9+.-]*://.+|\$\{?[A-Z][A-Z0-9_]*\}?$)",
        description="Files (Markdown, HTML, PDF, text): file://PATH, a file, folder or glob pattern (relative: from "
        "the case folder); package://NAME/PATH; https:// or s3:// with a path.",
    )
    rows_of: str | None = Field(None, description="Source of the case; each of its rows is a document.")
    template: Text = Field("", description="Of `rows_of`: Jinja that makes a row's text; columns are variables.")
    title: str = Field("", description="Of `rows_of`: Jinja that makes a row's title.")
    url: str = Field("", description="Address of a document in citations; {path} stands for its path, or its key.")
    practice: bool = Field(
        False, description="Answers never come from these documents: a tuned model practises on them."
    )
    labels: tuple[Label, ...] = Field(
        (), description="Only keys with one of these labels get passages of these documents; empty: all keys."
    )

    @model_validator(mode="after")
    def _come_from_one_place(self) -> Documents:
        if (self.uri is None) == (self.rows_of is None):
            raise ValueError("documents need uri or rows_of, one of them")
        if (self.rows_of is None) != (self.template == ""):
            raise ValueError("template belongs to rows_of: it makes the text of a row")
        return self


class Splitter(Section):
    """How documents are split into passages."""

    tokens: int = Field(96, ge=16, le=224, description="Maximum tokens of a passage, by the embedder's tokenizer.")
    overlap: int = Field(0, ge=0, le=64, description="Tokens that a passage repeats of the one before it.")
    headings: bool = Field(True, description="Begin a passage at each heading.")


class Knowledge(Section):
    """Documents that answers come from: how they are split, searched and used."""

    documents: dict[str, Documents] = Field(min_length=1, description="Collections of documents by name.")
    mask: tuple[Literal["email", "phone", "card", "iban", "secret"], ...] = Field(
        (),
        description="Kinds of personal data and secrets that are replaced by placeholders; documents with any of them "
        "are named in the warnings.",
    )
    tolerance: float = Field(
        0.05, ge=0, le=1, description="Share of bad documents of a collection above which the run fails."
    )
    expectations: tuple[Expectation, ...] = Field(
        (),
        description="Expectations on the documents, besides the built-in ones: on document_id, title, url, text, "
        "modified, characters, language (such as en), personal (places with personal data) and age_days.",
    )
    split: Splitter = Splitter()
    embedder: Embedder
    method: Literal["hybrid", "words", "vectors"] = Field(
        "hybrid", description="Search by words (BM25), by vectors (cosine), or both merged by reciprocal rank."
    )
    word_weight: float = Field(
        0.5, ge=0, le=1, description="Weight of the rank by words in method: hybrid; vectors have the rest."
    )
    practice_pairs: int = Field(
        240, ge=40, le=5000, description="Training pairs that are made of documents with practice: true."
    )
    passages: int = Field(5, ge=1, le=50, description="Passages for an answer.")
    answer_by: Literal["model", "extract"] = Field(
        "model", description="model: the model answers with the passages before it; extract: sentences of the passages."
    )
    grounded: bool = Field(
        True, description="Replace an answer by the abstention when its numbers, names or commands are in no passage."
    )

    @property
    def practice(self) -> tuple[str, ...]:
        """The collections that a tuned model practises on."""
        return tuple(sorted(name for name, config in self.documents.items() if config.practice))

    @model_validator(mode="after")
    def _answers_come_from_documents(self) -> Knowledge:
        if len(self.practice) == len(self.documents):
            raise ValueError("all documents are for practice; answers need some without practice: true")
        return self


class DocumentsSpec(Result):
    """Where the documents of a case come from."""

    knowledge: Knowledge
    sources: dict[str, Source]
    folder: Path  # of the case
    raw: Path  # cache of fetched files
