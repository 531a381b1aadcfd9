"""Cut a source to its as-of and validate what was not validated before."""

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
from tasks.data.results import ValidatedBatches, Validation
from tasks.data.sources import Ingestion, filter_as_of
from tasks.data.tabular.validate import validate


def validate_source(
    case: str, name: str, sources: Mapping[str, Source], landings: Mapping[str, Ingestion], as_of: datetime, state: Path
) -> ValidatedBatches:
    """Give the validated batches of a source as known at `as_of`.

    A batch is validated once for its content and expectations; the newest once for each as-of, since freshness depends
    on it.
    Raises: DataError when nothing was known yet, or when a batch fails; the report and the quarantine are kept.
    """
    source = sources[name]
    if landings[name].empty:
        return _nothing(name, landings[name])
    home = state / "batches" / case / name
    tables = {expectation.values_of.split(".")[0] for expectation in source.expectations if expectation.values_of}
    expected = [source.digest, {table: landings[table].key for table in sorted(tables)}]
    record = home / f"{cache_key(__name__, [landings[name].key, expected, as_of.isoformat()])[:20]}.checked.json"
    if (checked := _read_record(record)) is not None:
        mark_cached()
        return checked
    batches = _cut_all(name, source, landings[name], as_of, home)
    kept = {
        batch: home / f"{cache_key(__name__, [file_digest(path), expected])[:20]}.parquet"
        for batch, path in batches.items()
    }
    newest = max(batches)
    new = {b: path for b, path in batches.items() if b == newest or not _told(kept[b]).is_file()}
    moment = f"{as_of:%Y-%m-%dT%H%M%S}"
    with scratch_folder(home) as folder:
        work = Path(folder)
        references = {table: _gather(landings[table], sources[table], as_of, work / table) for table in tables}
        validation = validate(
            name,
            new,
            source,
            references,
            as_of,
            state / "docs" / case / name / moment,
            state / "quarantine" / case / name / f"{moment}.parquet",
            work / "clean",
        )
        if validation.failed:
            raise _failed(case, name, validation)
        for batch in new:
            _keep(work / "clean" / f"{batch}.parquet", kept[batch], validation.quarantined.get(batch, 0))
    counts = {batch: json.loads(_told(path).read_text(encoding="utf-8")) for batch, path in kept.items()}
    checked = ValidatedBatches(
        source=name,
        files=kept,
        rows=sum(count["rows"] for count in counts.values()),
        quarantined=sum(count["quarantined"] for count in counts.values()),
        validation=validation,
    )
    write_text(record, checked.model_dump_json(indent=1))
    return checked


def _read_record(path: Path) -> ValidatedBatches | None:
    """What an earlier run came to, as long as all the files that it names are there."""
    with contextlib.suppress(OSError, ValueError):
        checked = ValidatedBatches.model_validate_json(path.read_text(encoding="utf-8"))
        docs, quarantine = checked.validation.docs, checked.validation.quarantine
        if all(file.exists() for file in (*checked.files.values(), docs, quarantine) if file is not None):
            return checked
    return None


def _nothing(name: str, landing: Ingestion) -> ValidatedBatches:
    """Of a log before anybody has asked: no row, of which nothing can be expected."""
    validation = Validation(
        source=name, rows=0, quarantined={}, failed=[], warnings=[], expectations=0, docs=None, quarantine=None
    )
    files = {batch.name: batch.path for batch in landing.batches}
    return ValidatedBatches(source=name, files=files, rows=0, quarantined=0, validation=validation)


def _cut_all(name: str, source: Source, landing: Ingestion, as_of: datetime, home: Path) -> dict[str, Path]:
    out = home / "cut" / f"{as_of:%Y-%m-%dT%H%M%S}"
    cuts = {batch.name: filter_as_of(batch, source, as_of, out / f"{batch.name}.parquet") for batch in landing.batches}
    known = {batch: path for batch, path in cuts.items() if path is not None}
    if not known:
        first = landing.batches[0].first_known
        raise DataError(
            f"Source {name} has no data yet.",
            where="--as-of",
            found=f"{as_of:%Y-%m-%d %H:%M} UTC",
            allowed=f"from {first:%Y-%m-%d %H:%M} UTC, when its first row became known",
            todo="Take a later as-of.",
        )
    return known


def _gather(landing: Ingestion, source: Source, as_of: datetime, folder: Path) -> Path:
    """A folder with another source's batches as of then, to look its values up in."""
    folder.mkdir(parents=True)
    for batch in landing.batches:
        path = filter_as_of(batch, source, as_of, folder / f"{batch.name}.parquet")
        if path is not None and path.parent != folder:
            (folder / f"{batch.name}.parquet").symlink_to(path)
    return folder


def _keep(clean: Path, kept: Path, quarantined: int) -> None:
    """Move a clean batch to where later runs find it; its counts come last, and say that it is there."""
    import pyarrow.parquet as pq

    rows = pq.read_metadata(clean).num_rows
    with atomic_path(kept) as temporary:
        os.link(clean.resolve(), temporary)
    write_text(_told(kept), json.dumps({"rows": rows, "quarantined": quarantined}))


def _told(kept: Path) -> Path:
    return kept.with_suffix(".json")


def _failed(case: str, name: str, validation: Validation) -> DataError:
    return DataError(
        f"Source {name} of {case} failed its validation; nothing was changed.",
        where=f"expectations of data.sources.{name}",
        found="".join(f"\n    {sentence}" for sentence in validation.failed),
        todo="".join(
            [
                f"See {validation.docs}" if validation.docs else "See the expectations",
                f"; the rows put aside are in {validation.quarantine}" if validation.quarantine else "",
                ". Correct the data, or the expectation if the world has changed.",
            ]
        ),
    )
