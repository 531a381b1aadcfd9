"""Curates the documents of a case: read, mask, and validate them like any source."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tasks.core.code_digest import cache_key
from tasks.core.errors import DataError
from tasks.core.files import atomic_path, file_digest, scratch_folder
from tasks.core.progress import mark_cached
from tasks.data.config import Expectation, Source
from tasks.data.results import ValidatedBatches, Validation
from tasks.data.tabular.validate import ValidationPaths, validate
from tasks.knowledge.config import DOCUMENTS, Knowledge
from tasks.knowledge.documents.collect import Collected, Origins, collect
from tasks.knowledge.documents.data_card import write_card
from tasks.knowledge.documents.document import write_documents


def curate(case: str, knowledge: Knowledge, origins: Origins, *, as_of: datetime, state: Path) -> ValidatedBatches:
    """The documents of a case, a Parquet file a collection; equal inputs give equal files, written once.

    Raises: CaseError for a template that can't be used; DataError when more documents are bad than tolerated.
    """
    rows = {name: [file_digest(path) for path in files] for name, files in origins.rows.items()}
    settings = knowledge.model_dump(mode="json", include={"documents", "mask", "tolerance", "expectations"})
    inputs = [origins.digests, rows, settings, {name: s.key for name, s in origins.sources.items()}]
    home = state / DOCUMENTS / case / cache_key(__name__, [inputs, as_of.date().isoformat()])[:20]
    with contextlib.suppress(OSError, ValueError):
        existing = ValidatedBatches.model_validate_json((home / "checked.json").read_text(encoding="utf-8"))
        if all(path.is_file() for path in existing.files.values()):
            mark_cached()
            return existing
    collections, others = collect(knowledge, origins)
    moment = f"{as_of:%Y-%m-%dT%H%M%S}"
    with scratch_folder(home.parent) as folder:
        paths = ValidationPaths(
            docs=state / "docs" / case / DOCUMENTS / moment,
            quarantine=state / "quarantine" / case / DOCUMENTS / f"{moment}.parquet",
            clean=Path(folder) / "clean",
        )
        validation = _validate(case, knowledge, collections, as_of=as_of, paths=paths)
        shutil.rmtree(home, ignore_errors=True)  # of an earlier attempt, damaged since
        with atomic_path(home) as out:
            out.mkdir()
            clean = {
                name: _write_clean(paths.clean / f"{name}.parquet", out / f"{name}.parquet", collected)
                for name, collected in collections.items()
            }
            about = {"case": case, "as_of": f"{as_of:%Y-%m-%d %H:%M} UTC"}
            write_card(out / "card.md", about, clean, others=others, validation=validation)
            result = ValidatedBatches(
                source=DOCUMENTS,
                files={name: home / f"{name}.parquet" for name in collections},
                rows=sum(map(len, clean.values())),
                quarantined=sum(validation.quarantined.values()),
                quarantined_by_batch=validation.quarantined,
                validation=validation,
            )
            (out / "checked.json").write_text(result.model_dump_json(indent=1), encoding="utf-8")
    return result


def _as_source(knowledge: Knowledge) -> Source:
    """The documents as a source, with the expectations that always apply and those of the case."""
    expected: list[dict[str, Any]] = [
        {"expect": "column_values_to_be_null", "column": "problem", "why": "a readable text, once"},
        {"expect": "column_values_to_not_be_null", "column": "title"},
        {"expect": "column_values_to_not_be_null", "column": "text"},
    ]
    return Source(
        uri=f"file://{DOCUMENTS}",
        key=("document_id",),
        tolerance=knowledge.tolerance,
        expectations=(*map(Expectation.model_validate, expected), *knowledge.expectations),
    )


def _validate(
    case: str,
    knowledge: Knowledge,
    collections: Mapping[str, Sequence[Collected]],
    *,
    as_of: datetime,
    paths: ValidationPaths,
) -> Validation:
    """Validate the collections as the batches of a source. Raises: DataError when they fail."""
    batches = {name: paths.clean.parent / f"{name}.parquet" for name in collections}
    for name, path in batches.items():
        collected = collections[name]
        write_documents([each.document for each in collected], path, [each.measured(as_of) for each in collected])
    validation = validate(DOCUMENTS, _as_source(knowledge), batches, references={}, as_of=as_of, paths=paths)
    everything = [each for name in collections for each in collections[name]]
    bad = [f"{each.document.document_id}: {each.problem}" for each in everything if each.problem]
    left = [(e.document.document_id, e.personal - e.masked.total()) for e in everything]
    personal = [f"{document}: {n} places look like personal data or secrets" for document, n in left if n > 0]
    warnings = [*validation.warnings, *bad, *personal]
    if validation.failed:
        listed = [*validation.failed, *bad[:10], *([f"and {len(bad) - 10} more"] if len(bad) > 10 else [])]
        raise DataError(
            f"The documents of {case} failed their validation; nothing was changed.",
            where="knowledge.documents",
            found="".join(f"\n    {sentence}" for sentence in listed),
            todo=f"See {validation.docs}"
            + (
                f"; quarantined documents, with reasons, are in {validation.quarantine}"
                if validation.quarantine
                else ""
            )
            + ". Correct the documents, or knowledge.expectations and tolerance.",
        )
    return validation.model_copy(update={"warnings": warnings})


def _write_clean(clean: Path, out: Path, collected: Sequence[Collected]) -> list[Collected]:
    """Write the documents that passed, without the columns for checks, and return them."""
    import pyarrow.parquet as pq

    passed = set(pq.read_table(clean, columns=["document_id"])["document_id"].to_pylist())
    used = [each for each in collected if each.document.document_id in passed]
    write_documents([each.document for each in used], out)
    return used
