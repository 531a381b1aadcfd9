"""Prefect tasks of the knowledge stage."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tasks.core.prefect import show_link, stage
from tasks.data.results import EmbedderFiles, Snapshot, ValidatedBatches
from tasks.knowledge.config import DOCUMENTS, DocumentsSpec, Knowledge
from tasks.knowledge.results import KnowledgeIndex


@stage(
    "curate documents",
    lambda v: f"{v.rows:,} documents" + (f", {v.quarantined:,} quarantined" if v.quarantined else ""),
)
def curate_documents(
    case: str, spec: DocumentsSpec, validated: list[ValidatedBatches], *, as_of: datetime, state: Path
) -> ValidatedBatches:
    """Fetch, read and validate the documents of a case."""
    from tasks.knowledge.documents.collect import Origins, fetch_files
    from tasks.knowledge.documents.curate import curate

    needed = {config.rows_of for config in spec.knowledge.documents.values() if config.rows_of}
    origins = Origins(
        files=fetch_files(spec.knowledge, spec.folder, spec.raw),
        rows={v.source: [path for _, path in sorted(v.files.items())] for v in validated if v.source in needed},
        sources={name: source for name, source in spec.sources.items() if name in needed},
    )
    curated = curate(case, spec.knowledge, origins, as_of=as_of, state=state)
    show_link(f"{case}-documents", next(iter(curated.files.values())).parent / "card.md", "Data card of the documents")
    return curated


@stage("index documents", lambda index: f"{index.passages:,} passages of {index.documents:,} documents")
def open_index(
    case: str, snapshot: Snapshot, knowledge: Knowledge, embedder: EmbedderFiles, state: Path
) -> KnowledgeIndex:
    """Split, embed and index the documents of a snapshot; only what changed is embedded."""
    from tasks.knowledge.index.build import build_index

    names = sorted(set(knowledge.documents) - set(knowledge.practice))
    files = {name: snapshot.path / DOCUMENTS / f"{name}.parquet" for name in names}
    return build_index(case, files, knowledge, embedder, state)
