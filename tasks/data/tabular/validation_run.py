"""Filters a source by its as-of and validates the batches that are new."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from tasks.core.code_digest import cache_key
from tasks.core.errors import DataError
from tasks.core.files import atomic_path, file_digest, scratch_folder, write_text
from tasks.core.progress import mark_cached
from tasks.data.config import Source
from tasks.data.reading.report import ReadReport
from tasks.data.results import ValidatedBatches, Validation
from tasks.data.sources import Ingestion, filter_as_of
from tasks.data.tabular.validate import ValidationPaths, validate


def validate_source(
    case: str,
    name: str,
    sources: Mapping[str, Source],
    *,
    ingestions: Mapping[str, Ingestion],
    as_of: datetime,
    state: Path,
) -> ValidatedBatches:
    """The validated batches of a source as known at `as_of`.

    A batch is validated once for its content and expectations; the newest once for each as-of, since freshness depends
    on it.
    Raises: DataError when nothing was known yet, or when a batch fails; the report and the quarantine stay.
    """
    source = sources[name]
    if ingestions[name].empty:
        return _without_rows(name, ingestions[name])
    home = state / "batches" / case / name
    tables = {expectation.values_of.split(".")[0] for expectation in source.expectations if expectation.values_of}
    expected = [source.digest, {table: ingestions[table].key for table in sorted(tables)}]
    record = home / f"{cache_key(__name__, [ingestions[name].key, expected, as_of.isoformat()])[:20]}.checked.json"
    if (existing := _read_record(record)) is not None:
        mark_cached()
        return existing
    batches = _filter_batches(name, source, ingestions[name], as_of, home)
    files = {
        batch: home / f"{cache_key(__name__, [file_digest(path), expected])[:20]}.parquet"
        for batch, path in batches.items()
    }
    newest = max(batches)
    new = {
        batch: path for batch, path in batches.items() if batch == newest or not _counts_file(files[batch]).is_file()
    }
    moment = f"{as_of:%Y-%m-%dT%H%M%S}"
    with scratch_folder(home) as folder:
        work = Path(folder)
        references = {table: _link_batches(ingestions[table], sources[table], as_of, work / table) for table in tables}
        paths = ValidationPaths(
            docs=state / "docs" / case / name / moment,
            quarantine=state / "quarantine" / case / name / f"{moment}.parquet",
            clean=work / "clean",
        )
        validation = validate(name, source, new, references=references, as_of=as_of, paths=paths)
        report = ingestions[name].report
        if report.rejected:
            validation = _with_rejected(name, source, report, validation)
        if validation.failed:
            raise _validation_error(case, name, validation)
        for batch in new:
            _store(paths.clean / f"{batch}.parquet", files[batch], validation.quarantined.get(batch, 0))
    counts = {batch: json.loads(_counts_file(path).read_text(encoding="utf-8")) for batch, path in files.items()}
    validated = ValidatedBatches(
        source=name,
        files=files,
        rows=sum(count["rows"] for count in counts.values()),
        quarantined=sum(count["quarantined"] for count in counts.values()) + report.rejected,
        quarantined_by_batch={batch: count["quarantined"] for batch, count in counts.items()},
        validation=validation,
    )
    write_text(record, validated.model_dump_json(indent=1))
    return validated


def _with_rejected(name: str, source: Source, report: ReadReport, validation: Validation) -> Validation:
    """The validation with the records that were rejected when read; both together count against the tolerance."""
    bad = report.rejected + sum(validation.quarantined.values())
    warnings = [*validation.warnings, f"{name}: {report.rejected:,} records rejected, {report.first[0].sentence()}"]
    share = bad / report.records
    failed = list(validation.failed)
    if share > source.tolerance:
        failed.append(f"{name}: {bad:,} records are rejected or bad ({share:.1%}, tolerated {source.tolerance:.1%}).")
    return validation.model_copy(update={"warnings": warnings, "failed": failed})


def _read_record(path: Path) -> ValidatedBatches | None:
    """The result of an earlier run, if all the files that it names exist."""
    with contextlib.suppress(OSError, ValueError):
        validated = ValidatedBatches.model_validate_json(path.read_text(encoding="utf-8"))
        docs, quarantine = validated.validation.docs, validated.validation.quarantine
        if all(file.exists() for file in (*validated.files.values(), docs, quarantine) if file is not None):
            return validated
    return None


def _without_rows(name: str, ingestion: Ingestion) -> ValidatedBatches:
    """The result for a log before its first request: no row to validate."""
    validation = Validation(
        source=name, rows=0, quarantined={}, failed=[], warnings=[], expectations=0, docs=None, quarantine=None
    )
    files = {batch.name: batch.path for batch in ingestion.batches}
    return ValidatedBatches(source=name, files=files, rows=0, quarantined=0, validation=validation)


def _filter_batches(name: str, source: Source, ingestion: Ingestion, as_of: datetime, home: Path) -> dict[str, Path]:
    out = home / "cut" / f"{as_of:%Y-%m-%dT%H%M%S}"
    paths = {b.name: filter_as_of(b, source, as_of, out / f"{b.name}.parquet") for b in ingestion.batches}
    known = {batch: path for batch, path in paths.items() if path is not None}
    if not known:
        first = ingestion.batches[0].first_known
        raise DataError(
            f"Source {name} has no data yet.",
            where="--as-of",
            found=f"{as_of:%Y-%m-%d %H:%M} UTC",
            allowed=f"from {first:%Y-%m-%d %H:%M} UTC, when its first row became known",
            todo="Use a later as-of.",
        )
    return known


def _link_batches(ingestion: Ingestion, source: Source, as_of: datetime, folder: Path) -> Path:
    """A folder with another source's batches as known at `as_of`, for lookups of its values."""
    folder.mkdir(parents=True)
    for batch in ingestion.batches:
        path = filter_as_of(batch, source, as_of, folder / f"{batch.name}.parquet")
        if path is not None and path.parent != folder:
            (folder / f"{batch.name}.parquet").symlink_to(path)
    return folder


def _store(clean: Path, path: Path, quarantined: int) -> None:
    """Store a clean batch for later runs; its counts are written last and mark it as complete."""
    import pyarrow.parquet as pq

    rows = pq.read_metadata(clean).num_rows
    with atomic_path(path) as temporary:
        os.link(clean.resolve(), temporary)
    write_text(_counts_file(path), json.dumps({"rows": rows, "quarantined": quarantined}))


def _counts_file(batch: Path) -> Path:
    return batch.with_suffix(".json")


def _validation_error(case: str, name: str, validation: Validation) -> DataError:
    return DataError(
        f"Source {name} of {case} failed its validation; nothing was changed.",
        where=f"expectations of data.sources.{name}",
        found="".join(f"\n    {sentence}" for sentence in validation.failed),
        todo="".join(
            [
                f"See {validation.docs}" if validation.docs else "See the expectations",
                f"; the quarantined rows are in {validation.quarantine}" if validation.quarantine else "",
                ". Correct the data, or the expectation if the world has changed.",
            ]
        ),
    )
