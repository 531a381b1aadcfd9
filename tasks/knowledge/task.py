"""Prefect tasks of knowledge bases."""

from __future__ import annotations

from pathlib import Path

from tasks.core.prefect import stage
from tasks.data.results import EmbedderFiles, Snapshot, ValidatedBatches, Validation
from tasks.knowledge.config import Knowledge
from tasks.knowledge.results import KnowledgeIndex

DOCUMENTS = "documents"  # their name as a source, in a snapshot


@stage("ingest the documents", lambda batches: f"{batches.rows:,} documents")
def ingest_documents(case: str, knowledge: Knowledge, folder: Path, state: Path) -> ValidatedBatches:
    """The documents of a case as the batches of a source, one a collection. `folder` is the case's."""
    from tasks.core.config import digest_of
    from tasks.core.files import atomic_path
    from tasks.knowledge.documents import read_documents, write_documents

    home = state / DOCUMENTS / case
    files: dict[str, Path] = {}
    rows = 0
    for name, collection in sorted(knowledge.documents.items()):
        documents = list(read_documents({name: collection}, folder, home / "fetched"))
        digest = digest_of([[each.document_id, each.title, each.url, each.text, each.labels] for each in documents])
        files[name] = home / digest[:16] / f"{name}.parquet"
        if not files[name].is_file():
            with atomic_path(files[name]) as path:
                write_documents(documents, path)
        rows += len(documents)
    validation = Validation(
        source=DOCUMENTS, rows=rows, quarantined={}, failed=[], warnings=[], expectations=0, docs=None, quarantine=None
    )
    return ValidatedBatches(source=DOCUMENTS, files=files, rows=rows, quarantined=0, validation=validation)


@stage("index the documents", lambda index: f"{index.passages:,} passages, {index.digest[:12]}")
def open_index(
    case: str, snapshot: Snapshot, knowledge: Knowledge, embedder: EmbedderFiles, state: Path
) -> KnowledgeIndex:
    """The index of a snapshot's documents, built when it is new."""
    from tasks.knowledge.build import build_index

    files = {path.stem: path for path in sorted((snapshot.path / DOCUMENTS).glob("*.parquet"))}
    return build_index(case, files, knowledge, embedder, state)
