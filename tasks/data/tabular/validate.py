"""Validate a source's new batches: what Great Expectations says, which rows are put aside, which batches fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.duckdb import connect, quote_identifier, scan_parquet
from tasks.core.errors import DataError
from tasks.data.config import Source
from tasks.data.results import Validation
from tasks.data.tabular import quarantine as rows_of
from tasks.data.tabular.checks import Checks, make_checks, reference_of
from tasks.data.tabular.gx_runner import Check, GxRunner, Outcome

if TYPE_CHECKING:
    import duckdb

LISTED = 100_000  # bad rows listed for one check, unless more are tolerated: beyond that a batch fails anyway


def validate(
    source: str,
    batches: Mapping[str, Path],
    config: Source,
    references: Mapping[str, Path],
    as_of: datetime,
    docs: Path,
    quarantine: Path,
    clean: Path,
) -> Validation:
    """Validate the new batches of one source, all in one run.

    batches: Parquet file by batch name, already cut to the as-of. references: Parquet file, or folder of them, by the
    table that `values_of` names. Written: `docs` (a folder with index.html), `quarantine` (a Parquet file, if rows are
    put aside) and, unless something failed, `clean`/BATCH.parquet. What fails is said in the result, not raised.
    Raises: DataError where a check can't be computed, such as a column missing; CaseError where it is not valid.
    """
    import duckdb

    quarantine.unlink(missing_ok=True)
    batches = dict(sorted(batches.items()))
    report = _Report(source, {name: _count_rows(source, name, path) for name, path in batches.items()})
    filled = {name: path for name, path in batches.items() if report.counts[name]}
    report.failed += [f"{source} {name} is empty." for name in batches if name not in filled]
    if not batches:
        report.failed.append(f"{source} has no new batch.")
    differences = _differences(source, filled)
    report.failed += differences
    if not filled or differences:
        return report.told()
    with connect() as db:
        try:
            rows_of.make_views(db, filled)
            checks = make_checks(db, source, config, references)
            report.expectations = len(checks.all)
            judge = GxRunner(db, source, f"as-of-{as_of:%Y-%m-%dT%H%M}")
            if _judge_structure(db, judge, checks, report):
                _prepare_views(db, checks, report, config, references, as_of, filled)
                of_rows = judge.judge("rows", checks.rows)
                of_batches = judge.judge("batches", checks.batches, "batch")
                report.docs = judge.write_docs(docs)
                _tell_of_batches(checks.batches, of_batches, report)
                _put_aside(db, judge, checks.rows, of_rows, report, config.tolerance, quarantine)
            else:
                report.docs = judge.write_docs(docs)
            if not report.failed:
                rows_of.write_clean(db, filled, report.bad, clean)
        except duckdb.Error as error:
            raise DataError(
                f"Source {source} could not be validated.",
                where=", ".join(path.name for path in filled.values()),
                found=str(error).strip().splitlines()[0],
                todo="Compare the columns and their types with the source's expectations and key.",
            ) from error
    return report.told()


class _Report:
    """What is known so far, in the order in which it is found."""

    def __init__(self, source: str, counts: Mapping[str, int]) -> None:
        self.source, self.counts = source, counts
        self.failed: list[str] = []
        self.warnings: list[str] = []
        self.bad: dict[str, int] = {}
        self.expectations = 0
        self.docs: Path | None = None
        self.quarantine: Path | None = None

    def say(self, check: Check, outcome: Outcome, of: str = "") -> None:
        told = self.failed if check.critical else self.warnings
        told.append(outcome.sentence(check, of or self.source))

    def told(self) -> Validation:
        return Validation(
            source=self.source,
            rows=sum(self.counts.values()),
            quarantined=self.bad,
            failed=self.failed,
            warnings=self.warnings,
            expectations=self.expectations,
            docs=self.docs,
            quarantine=self.quarantine,
        )


def _judge_structure(db: duckdb.DuckDBPyConnection, judge: GxRunner, checks: Checks, report: _Report) -> bool:
    """Whether the columns and their types are such that the rows can be looked at."""
    db.execute("CREATE VIEW columns AS FROM plain")
    said = judge.judge("columns", checks.structure)
    unmet = [check for check in checks.structure if not said[check.at].passed]
    for check in unmet:
        report.say(check, said[check.at])
    return not any(check.critical for check in unmet)


def _prepare_views(
    db: duckdb.DuckDBPyConnection,
    checks: Checks,
    report: _Report,
    config: Source,
    references: Mapping[str, Path],
    as_of: datetime,
    batches: Mapping[str, Path],
) -> None:
    unique = dict.fromkeys(check.columns for check in checks.rows if check.counted)
    lookups = {
        (check.columns[0], str(check.stated.values_of)): reference_of(report.source, check.stated, references)
        for check in checks.rows
        if check.looked_up
    }
    rows_of.make_validated_view(db, "rows", unique, lookups)
    _describe_batches(db, config, report.counts, batches, as_of)


def _describe_batches(
    db: duckdb.DuckDBPyConnection,
    config: Source,
    counts: Mapping[str, int],
    batches: Mapping[str, Path],
    as_of: datetime,
) -> None:
    """Make the table that batch_expectations are about."""
    moments = "first TIMESTAMPTZ, last TIMESTAMPTZ"
    db.execute(f"CREATE TABLE batches (batch VARCHAR, rows BIGINT, {moments}, hours_since_last DOUBLE)")
    for name, count in counts.items():
        first = last = None
        if config.time and name in batches:
            column = f"{quote_identifier(config.time)}::TIMESTAMPTZ"
            seen = db.execute(f"SELECT min({column}), max({column}) FROM {scan_parquet(batches[name])}")
            first, last = seen.fetchall()[0]
        hours = (as_of - last).total_seconds() / 3600 if last else None
        db.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?)", [name, count, first, last, hours])


def _tell_of_batches(checks: Sequence[Check], said: Mapping[int, Outcome], report: _Report) -> None:
    for check in checks:
        outcome = said[check.at]
        if not outcome.passed:
            named = ", ".join(outcome.rows)
            report.say(check, outcome, f"{report.source} {named}" if named else f"{report.source}, its batches")


def _put_aside(
    db: duckdb.DuckDBPyConnection,
    judge: GxRunner,
    checks: Sequence[Check],
    said: Mapping[int, Outcome],
    report: _Report,
    tolerance: float,
    quarantine: Path,
) -> None:
    """Report the checks that rows do not meet, and write the rows that do not meet a critical one to the quarantine."""
    aside = []
    for check in checks:
        outcome = said[check.at]
        if not outcome.passed and check.critical and check.row_level and outcome.unexpected:
            aside.append(check)
        elif not outcome.passed:
            report.say(check, outcome)
    if not aside:
        return
    most = max(LISTED, int(tolerance * sum(report.counts.values())) + 1)
    found = {at: outcome.rows for at, outcome in judge.judge("rows", aside, rows_of.ROW, most).items()}
    for check in [check for check in aside if not found[check.at]]:
        report.say(check, said[check.at])  # a few types tell how many rows, not which
        aside.remove(check)
    if not aside:
        return
    report.bad = rows_of.record_bad_rows(db, found)
    report.quarantine = rows_of.write_quarantine(db, "rows", aside, quarantine)
    report.warnings += [f"{said[check.at].sentence(check, report.source)} Put aside." for check in aside]
    labels = {check.at: check.label for check in aside}
    for name, bad in report.bad.items():
        count = report.counts[name]
        if bad < count and bad / count <= tolerance:
            continue
        reasons = db.execute(
            "SELECT fails, count(*) AS rows FROM bad JOIN names ON number >> 40 = place WHERE batch = ? "
            "GROUP BY fails ORDER BY rows DESC, fails",
            [name],
        ).fetchall()
        because = ", ".join(f"{labels[at]} ({rows:,})" for at, rows in reasons)
        share = f"{bad / count:.1%}, tolerated {tolerance:.1%}"
        rows = f"all {count:,}" if bad == count else f"{bad:,} of {count:,}"
        report.failed.append(f"{report.source} {name}: {rows} rows are bad ({share}): {because}.")
    report.failed += [
        f"{report.source}: more than {most:,} rows do not meet {check.label}; the quarantine lists the first."
        for check in aside
        if said[check.at].unexpected > most
    ]


def _count_rows(source: str, name: str, path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"The batch {name} of source {source} can't be read.",
            where=str(path),
            found=str(error).splitlines()[0],
            todo="Remove the file, so that it is made again.",
        ) from error


def _differences(source: str, batches: Mapping[str, Path]) -> list[str]:
    """One sentence for each column that is not in every batch, or of another type than in the first."""
    import pyarrow.parquet as pq

    shapes = {}
    for name, path in batches.items():
        schema = pq.read_schema(path)
        shapes[name] = dict(zip(schema.names, schema.types, strict=True))
    first, expected = next(iter(shapes.items()), ("", {}))
    said = []
    for name, shape in shapes.items():
        for column in [*expected, *(column for column in shape if column not in expected)]:
            here, there = (str(of.get(column, "missing")) for of in (shape, expected))
            if here != there:
                said.append(f"{source} {name}: column {column} is {here}, but {there} in {first}.")
    return said
