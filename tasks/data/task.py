"""Prefect tasks of the data room."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tasks.core.prefect import show_link, show_table, stage
from tasks.data.config import Answer, ChatSpec, Model, Pairs, Source, Traffic
from tasks.data.results import BaseModelFiles, Snapshot, ValidatedBatches, WindowMessages
from tasks.data.sources import Ingestion


@stage("land {name}", lambda landing: f"{len(landing.batches)} batches")
def ingest_source(name: str, source: Source, folder: Path, raw: Path, log: Path | None) -> Ingestion:
    """Write a source month by month under data/raw; an unchanged source is not read again."""
    from tasks.data.sources import ingest

    return ingest(name, source, folder, raw, log)


def _told(checked: ValidatedBatches) -> str:
    warnings = len(checked.validation.warnings)
    parts = [f"{checked.rows:,} rows", f"{checked.validation.expectations} expectations"]
    parts += [f"{checked.quarantined:,} quarantined"] if checked.quarantined else []
    return ", ".join(parts + ([f"{warnings} warnings"] if warnings else []))


@stage("validate {name}", _told)
def validate_source(
    name: str, case: str, sources: dict[str, Source], landings: dict[str, Ingestion], as_of: datetime, state: Path
) -> ValidatedBatches:
    """Cut a source to the as-of, validate what is new, and put bad rows aside."""
    from tasks.data.tabular.validation_run import validate_source

    checked = validate_source(case, name, sources, landings, as_of, state)
    if checked.validation.docs:
        show_link(f"{case}-{name}", checked.validation.docs, f"Data Docs of {name}")
    return checked


@stage("open the base model", lambda base: f"{base.parameters / 1e6:.0f}M parameters, {base.digest[:12]}")
def open_model(model: Model, folder: Path, state: Path) -> BaseModelFiles:
    """Check the base model against its pin, and keep it as a plain checkpoint."""
    from tasks.data.language.base_model import open_base

    return open_base(model, folder, state)


@stage("curate pairs", _told)
def curate_pairs(
    case: str,
    pairs: Pairs,
    talk: ChatSpec,
    base: BaseModelFiles,
    sources: dict[str, Source],
    checked: list[ValidatedBatches],
    as_of: datetime,
    state: Path,
) -> ValidatedBatches:
    """Make or read instruction pairs, free them of duplicates and personal data, split and validate them."""
    from tasks.data.language.curate import curate

    curated = curate(case, pairs, talk, base, sources, checked, as_of, state)
    show_link(f"{case}-pairs", curated.files["train"].parent / "card.md", "Data card of the pairs")
    return curated


@stage("snapshot", lambda snapshot: f"{sum(snapshot.rows.values()):,} rows, {snapshot.digest[:12]}")
def take_snapshot(
    case: str, as_of: datetime, checked: list[ValidatedBatches], state: Path, remote: str, repaired: str = ""
) -> Snapshot:
    """Gather the validated batches, add them to DVC, and push; again at the moment `repaired`, when it was damaged."""
    from tasks.data.snapshots import store_snapshot

    rows = [
        {"source": c.source, "rows": c.rows, "quarantined": c.quarantined, "warnings": "; ".join(c.validation.warnings)}
        for c in checked
    ]
    show_table(f"{case}-validation", rows, "What is in the snapshot")
    return store_snapshot(
        case,
        as_of,
        {c.source: c.files for c in checked},
        {c.source: c.rows for c in checked},
        {c.source: c.quarantined for c in checked},
        {c.source: c.validation.docs for c in checked if c.validation.docs},
        state / "store",
        remote,
    )


@stage("gather messages {start:%Y-%m-%d} to {end:%Y-%m-%d}", lambda asked: f"{asked.rows:,} messages")
def gather_messages(
    case: str,
    traffic: Traffic,
    pairs: Pairs,
    answer: Answer,
    sources: dict[str, Source],
    snapshot: Snapshot,
    state: Path,
    start: datetime,
    end: datetime,
) -> WindowMessages:
    """What was asked in a window, with the right answers that are known."""
    from tasks.data.language.traffic import gather_messages

    return gather_messages(case, traffic, pairs, answer, sources, snapshot.path, state, start, end)
