"""Documents, as a snapshot holds them: one Parquet file a collection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

# columns for checks alone, which a snapshot does not hold
MEASURED = {"characters": "int64", "language": "string", "personal": "int64", "age_days": "double", "problem": "string"}


@dataclass(frozen=True)
class Document:
    """A document of a knowledge base."""

    document_id: str  # COLLECTION/PATH
    title: str
    url: str
    text: str  # Markdown
    labels: tuple[str, ...] = ()
    modified: datetime | None = None


def write_documents(documents: Sequence[Document], path: Path, measured: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write documents as a Parquet file, sorted by id; `measured` has further columns of each, for checks."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    more = measured or [{}] * len(documents)
    rows = [{**asdict(document), **each} for document, each in zip(documents, more, strict=True)]
    rows.sort(key=lambda row: str(row["document_id"]))
    schema = _schema()
    for column, kind in (MEASURED if measured else {}).items():
        schema = schema.append(pa.field(column, pa.type_for_alias(kind)))
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


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
