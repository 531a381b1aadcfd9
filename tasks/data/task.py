"""Prefect tasks of the data stage."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tasks.core.prefect import show_link, show_table, stage
from tasks.data.config import Model, PairsSpec, Source, TrafficSpec
from tasks.data.results import BaseModelFiles, Snapshot, TimeWindow, ValidatedBatches, WindowMessages
from tasks.data.sources import Ingestion
from tasks.language.upstream import is_remote


@stage("ingest {name}", lambda ingestion: ingestion.summary)
def ingest_source(
    name: str, source: Source, folder: Path, *, raw: Path, log: Path | None, verbatim: bool = False
) -> Ingestion:
    """Write a source month by month under data/raw; an unchanged source is not read again."""
    from tasks.data.sources import ingest

    return ingest(name, source, folder, raw=raw, log=log, verbatim=verbatim)


def _validation_summary(validated: ValidatedBatches) -> str:
    warnings = len(validated.validation.warnings)
    parts = [f"{validated.rows:,} rows", f"{validated.validation.expectations} expectations"]
    parts += [f"{validated.quarantined:,} quarantined"] if validated.quarantined else []
    return ", ".join(parts + ([f"{warnings} warnings"] if warnings else []))


@stage("validate {name}", _validation_summary)
def validate_source(
    case: str,
    name: str,
    sources: dict[str, Source],
    *,
    ingestions: dict[str, Ingestion],
    as_of: datetime,
    state: Path,
) -> ValidatedBatches:
    """Filter a source by the as-of, validate new batches, and quarantine bad rows."""
    from tasks.data.tabular.validation_run import validate_source

    validated = validate_source(case, name, sources, ingestions=ingestions, as_of=as_of, state=state)
    if validated.validation.docs:
        show_link(f"{case}-{name}", validated.validation.docs, f"Data Docs of {name}")
    return validated


@stage("open the base model", lambda base: base.summary)
def open_model(model: Model, folder: Path, state: Path) -> BaseModelFiles:
    """Check the base model against its pin, and store it as a plain checkpoint; or ask the server that has it."""
    from tasks.data.language.base_model import open_base
    from tasks.data.language.remote_base import open_remote

    return open_remote(model, state) if is_remote(model.source) else open_base(model, folder, state)


@stage("curate pairs", _validation_summary)
def curate_pairs(
    case: str,
    spec: PairsSpec,
    base: BaseModelFiles,
    *,
    validated: list[ValidatedBatches],
    as_of: datetime,
    state: Path,
) -> ValidatedBatches:
    """Generate or read instruction pairs, remove duplicates and personal data, split and validate them."""
    from tasks.data.language.curate import curate

    curated = curate(case, spec, base, validated=validated, as_of=as_of, state=state)
    show_link(f"{case}-pairs", next(iter(curated.files.values())).parent / "card.md", "Data card of the pairs")
    return curated


@stage("snapshot", lambda snapshot: f"{sum(snapshot.rows.values()):,} rows, {snapshot.digest[:12]}")
def take_snapshot(
    case: str, as_of: datetime, validated: list[ValidatedBatches], *, state: Path, remote: str, repaired: str = ""
) -> Snapshot:
    """Add the validated batches to DVC, and push them; `repaired` is a time: a damaged snapshot is stored again."""
    from tasks.data.snapshots import store_snapshot

    rows = [
        {"source": v.source, "rows": v.rows, "quarantined": v.quarantined, "warnings": "; ".join(v.validation.warnings)}
        for v in validated
    ]
    show_table(f"{case}-validation", rows, "Contents of the snapshot")
    return store_snapshot(case, as_of, validated, store=state / "store", remote=remote)


@stage(
    "gather messages {window.start:%Y-%m-%d} to {window.end:%Y-%m-%d}", lambda messages: f"{messages.rows:,} messages"
)
def gather_messages(spec: TrafficSpec, snapshot: Snapshot, window: TimeWindow, state: Path) -> WindowMessages:
    """The requests of a time window, with the expected answers that are known."""
    from tasks.data.language.traffic import gather_messages

    return gather_messages(spec, snapshot, window, state)
