"""Reads the documents of a case as Markdown text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tasks.core.errors import DataError
from tasks.data.origins.address import Address
from tasks.data.origins.fetch import fetch
from tasks.knowledge.config import Documents
from tasks.knowledge.markdown import FRONT_MATTER, first_heading


@dataclass(frozen=True)
class Document:
    """A document of a knowledge base."""

    document_id: str  # COLLECTION/PATH
    title: str
    url: str
    text: str  # Markdown
    labels: tuple[str, ...] = ()
    modified: datetime | None = None


def read_documents(documents: Mapping[str, Documents], folder: Path, cache: Path) -> Iterator[Document]:
    """The documents of all collections, sorted by id. `folder` is the case's.

    Raises: CaseError, DataError, Unavailable.
    """
    for name in sorted(documents):
        yield from _read_collection(name, documents[name], folder, cache / name)


def _read_collection(name: str, config: Documents, folder: Path, cache: Path) -> Iterator[Document]:
    fetched = fetch(Address(config.uri or "", mixed=True), folder, cache)
    for file in sorted(fetched.files, key=lambda each: each.name):
        try:
            text = file.path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError("A document is no text.", where=f"{name}/{file.name}", found=str(error)) from error
        text = FRONT_MATTER.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
        yield Document(
            document_id=f"{name}/{file.name}",
            title=first_heading(text) or Path(file.name).stem,
            url=config.url.replace("{path}", file.name),
            text=text,
            labels=config.labels,
        )


def write_documents(documents: Sequence[Document], path: Path) -> None:
    """Write documents as a Parquet file, sorted by id."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [asdict(document) for document in sorted(documents, key=lambda each: each.document_id)]
    pq.write_table(pa.Table.from_pylist(rows, schema=_schema()), path)


def load_documents(files: Mapping[str, Path]) -> Iterator[Document]:
    """The documents of a snapshot's Parquet files, sorted by id."""
    import pyarrow.parquet as pq

    rows = [row for path in files.values() for row in pq.read_table(path).to_pylist()]
    for row in sorted(rows, key=lambda each: str(each["document_id"])):
        yield Document(**{**row, "labels": tuple(row["labels"])})


def _schema() -> Any:
    import pyarrow as pa

    text = pa.string()
    moment = pa.timestamp("us", tz="UTC")
    columns = [("document_id", text), ("title", text), ("url", text), ("text", text), ("labels", pa.list_(text))]
    return pa.schema([*columns, ("modified", moment)])
