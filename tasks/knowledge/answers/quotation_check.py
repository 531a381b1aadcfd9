"""Checks a case's questions against its documents before any run: which quotations no longer stand there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.core.files import temporary_folder
from tasks.data.config import Source
from tasks.data.origins.address import Address
from tasks.data.sources import ingest
from tasks.knowledge.answers.relevance import Quotation, Quotations
from tasks.knowledge.config import Knowledge
from tasks.knowledge.documents.collect import Origins, collect, fetch_files
from tasks.knowledge.results import Passage


def missing_quotations(knowledge: Knowledge, sources: Mapping[str, Source], folder: Path) -> list[str]:
    """A sentence for each quotation of a question that its document lacks; `folder` is the case's.

    Only files on this machine are read: questions and documents of other addresses are left out.
    """
    local = {name: each for name, each in knowledge.documents.items() if each.uri and _is_local(each.uri)}
    questions = {name: source for name, source in sources.items() if not source.log and _is_local(source.uri)}
    if not local or not questions:
        return []
    with temporary_folder("validate") as work:
        evidence = _evidence(questions, folder, Path(work))
        if not evidence:
            return []
        on_disk = knowledge.model_copy(update={"documents": local})
        files = fetch_files(on_disk, folder, Path(work) / "documents")
        collections, _ = collect(on_disk, Origins(files, {}, {}))
    documents = [each.document for collected in collections.values() for each in collected]
    whole = [Passage(each.document_id, each.document_id, each.title, "", "", each.text) for each in documents]
    return Quotations(whole).missing(
        {
            question: [(document, quote) for document, quote in quotations if document.partition("/")[0] in local]
            for question, quotations in evidence.items()
        }
    )


def _is_local(uri: str) -> bool:
    return Address(uri, mixed=True).kind == "local"


def _evidence(sources: Mapping[str, Source], folder: Path, work: Path) -> dict[str, list[Quotation]]:
    """The quotations of each question."""
    import pyarrow.parquet as pq

    evidence: dict[str, list[Quotation]] = {}
    for name, source in sources.items():
        ingested = ingest(name, source, folder, raw=work, verbatim=True)
        if not {"prompt", "evidence"} <= {*ingested.columns}:
            continue
        for batch in ingested.batches:
            for row in pq.read_table(batch.path, columns=["prompt", "evidence"]).to_pylist():
                evidence.setdefault(str(row["prompt"]), []).extend(_quotations(row["evidence"]))
    return evidence


def _quotations(cell: Any) -> list[Quotation]:
    """Document and quote of each entry; what has another form is reported by the run, row by row."""
    try:
        entries = json.loads(cell) if isinstance(cell, str) else cell or []
        return [(str(each["document"]), str(each["quote"])) for each in entries]
    except (ValueError, TypeError, KeyError):
        return []
