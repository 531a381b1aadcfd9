"""Collects the documents of a case from files and rows, with what is wrong with each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from tasks.core.config import digest_of
from tasks.core.errors import DataError
from tasks.data.config import Source
from tasks.data.origins.address import Address
from tasks.data.origins.fetch import fetch
from tasks.data.origins.results import Fetched
from tasks.guard.redaction import redact
from tasks.knowledge.config import Documents, Knowledge
from tasks.knowledge.documents.document import Document
from tasks.knowledge.documents.markdown import plain
from tasks.knowledge.documents.reading import SUFFIXES, as_utc, read_file
from tasks.knowledge.documents.row_texts import row_texts


@dataclass(frozen=True)
class Origins:
    """Where the documents of a case come from, as fetched."""

    files: Mapping[str, Fetched]  # by collection
    rows: Mapping[str, Sequence[Path]]  # validated batches by source
    sources: Mapping[str, Source]

    @property
    def digests(self) -> dict[str, Any]:
        """The digests of the files by collection, and their names, which citations show."""
        return {name: [[f.name, f.digest] for f in fetched.files] for name, fetched in self.files.items()}


@dataclass
class Collected:
    """A document, and what is wrong with it."""

    document: Document
    problem: str | None = None  # why it can't be used
    masked: Counter[str] = field(default_factory=Counter)
    personal: int = 0  # places with personal data or secrets, before they are masked

    def measured(self, as_of: datetime) -> dict[str, Any]:
        """Columns for checks."""
        import py3langid

        text, modified = plain(self.document.text[:20_000]), self.document.modified
        return {
            "characters": len(self.document.text),
            "language": py3langid.classify(text[:2_000])[0] if text else None,
            "personal": self.personal,
            "age_days": (as_of - modified).total_seconds() / 86_400 if modified else None,
            "problem": self.problem,
        }


def fetch_files(knowledge: Knowledge, folder: Path, cache: Path) -> dict[str, Fetched]:
    """The files of each collection that has files; unchanged ones are not read again. `folder` is the case's.

    Raises: CaseError, DataError, Unavailable.
    """
    uris = {name: config.uri for name, config in knowledge.documents.items() if config.uri}
    return {name: fetch(Address(uri, mixed=True), folder, cache / name) for name, uri in uris.items()}


def collect(knowledge: Knowledge, origins: Origins) -> tuple[dict[str, list[Collected]], Counter[str]]:
    """The documents by collection, sorted by id; and the number of files of other kinds, by suffix.

    Of equal texts all but the first have a problem.
    """
    collections: dict[str, list[Collected]] = {}
    others: Counter[str] = Counter()
    first: dict[str, str] = {}
    for name, config in sorted(knowledge.documents.items()):
        read = _of_files(name, config, origins, others) if config.uri else _of_rows(name, config, origins)
        collected = sorted(read, key=lambda each: each.document.document_id)
        collections[name] = [_checked(each, knowledge, first) for each in collected]
    return collections, others


def _of_files(name: str, config: Documents, origins: Origins, others: Counter[str]) -> Iterator[Collected]:
    for file in origins.files[name].files:
        if (suffix := file.path.suffix.lower()) not in SUFFIXES:
            others[suffix or "without suffix"] += 1
            continue
        document = Document(
            document_id=f"{name}/{file.name}",
            title=Path(file.name).stem,
            url=config.url.replace("{path}", file.name),
            text="",
            labels=tuple(sorted(config.labels)),
        )
        try:
            read = read_file(file.path)
        except DataError as error:
            yield Collected(document, error.found)
            continue
        yield Collected(replace(document, title=read.title or document.title, text=read.text, modified=read.modified))


def _of_rows(name: str, config: Documents, origins: Origins) -> Iterator[Collected]:
    source = origins.sources[config.rows_of or ""]
    for each in row_texts(name, config, source, origins.rows[config.rows_of or ""]):
        yield Collected(
            Document(
                document_id=f"{name}/{each.key}",
                title=" ".join(each.title.split()),
                url=config.url.replace("{path}", each.key),
                text=each.text,
                labels=tuple(sorted(config.labels)),
                modified=as_utc(each.row.get(source.time)) if source.time else None,
            )
        )


def _checked(collected: Collected, knowledge: Knowledge, first: dict[str, str]) -> Collected:
    """Mask personal data, and note an empty or repeated text."""
    document = collected.document
    if collected.problem is None:
        text, masked = redact(document.text, knowledge.mask)
        personal = sum(redact(document.text)[1].values())
        collected = Collected(replace(document, text=text), None, masked, personal)
        if not plain(text):
            collected.problem = "it is empty"
        elif (earlier := first.setdefault(digest_of(plain(text)), document.document_id)) != document.document_id:
            collected.problem = f"its text is that of {earlier}"
    return collected
