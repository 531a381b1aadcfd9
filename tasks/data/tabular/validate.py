"""Validates a source's new batches: runs the checks, quarantines bad rows, and decides which batches fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.duckdb import connect, quote_identifier, scan_parquet
from tasks.core.errors import DataError
from tasks.data.config import Source
from tasks.data.results import Validation
from tasks.data.tabular import quarantine
from tasks.data.tabular.checks import Check, Checks, make_checks, reference_path
from tasks.data.tabular.gx_runner import GxRunner, Outcome

if TYPE_CHECKING:
    import duckdb

MAX_BAD_ROWS = 100_000  # rows listed per check, unless more are tolerated: a batch with more fails anyway


@dataclass(frozen=True)
class ValidationPaths:
    """Where one validation writes."""

    docs: Path  # a folder with index.html
    quarantine: Path  # a Parquet file, if rows are quarantined
    clean: Path  # a folder with BATCH.parquet, unless something failed


def validate(
    source: str,
    config: Source,
    batches: Mapping[str, Path],
    *,
    references: Mapping[str, Path],
    as_of: datetime,
    paths: ValidationPaths,
) -> Validation:
    """Validate the new batches of one source in one run.

    batches: Parquet file by batch name, as known at `as_of`. references: Parquet file, or folder of them, by the table
    that `values_of` names. Failures are in the result, not raised.
    Raises: DataError where a check can't be computed, for example for a missing column; CaseError where it is not
    valid.
    """
    import duckdb

    paths.quarantine.unlink(missing_ok=True)
    batches = dict(sorted(batches.items()))
    report = _Report(source, {name: _count_rows(source, name, path) for name, path in batches.items()})
    filled = {name: path for name, path in batches.items() if report.counts[name]}
    report.failed += [f"{source} {name} is empty." for name in batches if name not in filled]
    if not batches:
        report.failed.append(f"{source} has no new batch.")
    differences = _schema_differences(source, filled)
    report.failed += differences
    if not filled or differences:
        return report.result()
    with connect() as db:
        try:
            quarantine.make_views(db, filled)
            checks = make_checks(db, source, config, references)
            report.expectations = checks.count
            runner = GxRunner(db, source, f"as-of-{as_of:%Y-%m-%dT%H%M}")
            run = _Run(db, runner, config, checks, report)
            if run.check_structure():
                run.prepare_views(references, filled, as_of)
                row_outcomes = runner.run("rows", checks.rows)
                batch_outcomes = runner.run("batches", checks.batches, "batch")
                report.docs = runner.write_docs(paths.docs)
                run.report_batches(batch_outcomes)
                run.quarantine_rows(row_outcomes, paths.quarantine)
            else:
                report.docs = runner.write_docs(paths.docs)
            if not report.failed:
                quarantine.write_clean(db, filled, report.bad, paths.clean)
        except duckdb.Error as error:
            raise DataError(
                f"Source {source} could not be validated.",
                where=", ".join(path.name for path in filled.values()),
                found=str(error).strip().splitlines()[0],
                todo="Compare the columns and their types with the source's expectations and key.",
            ) from error
    return report.result()


@dataclass
class _Report:
    """The results so far, in the order in which they are found."""

    source: str
    counts: Mapping[str, int]  # rows by batch
    failed: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    bad: dict[str, int] = field(default_factory=dict)  # quarantined rows by batch
    expectations: int = 0
    docs: Path | None = None
    quarantine: Path | None = None

    def add(self, check: Check, outcome: Outcome, subject: str = "") -> None:
        sentences = self.failed if check.critical else self.warnings
        sentences.append(outcome.sentence(check, subject or self.source))

    def result(self) -> Validation:
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


@dataclass(frozen=True)
class _Run:
    """The checks of one source over one database."""

    db: duckdb.DuckDBPyConnection
    runner: GxRunner
    config: Source
    checks: Checks
    report: _Report

    def check_structure(self) -> bool:
        """Whether the columns and their types let the rows be checked."""
        self.db.execute("CREATE VIEW columns AS FROM plain")
        outcomes = self.runner.run("columns", self.checks.structure)
        unmet = [check for check in self.checks.structure if not outcomes[check.number].passed]
        for check in unmet:
            self.report.add(check, outcomes[check.number])
        return not any(check.critical for check in unmet)

    def prepare_views(self, references: Mapping[str, Path], batches: Mapping[str, Path], as_of: datetime) -> None:
        """Create the view `rows` and the table `batches`, which the other checks run on."""
        unique = dict.fromkeys(check.columns for check in self.checks.rows if check.count_column)
        lookups = {
            (check.columns[0], str(check.stated.values_of)): reference_path(
                self.report.source, check.stated, references
            )
            for check in self.checks.rows
            if check.is_lookup
        }
        quarantine.make_validated_view(self.db, "rows", unique, lookups)
        moments = "first TIMESTAMPTZ, last TIMESTAMPTZ"
        self.db.execute(f"CREATE TABLE batches (batch VARCHAR, rows BIGINT, {moments}, hours_since_last DOUBLE)")
        for name, count in self.report.counts.items():
            first = last = None
            if self.config.time and name in batches:
                column = f"{quote_identifier(self.config.time)}::TIMESTAMPTZ"
                bounds = self.db.execute(f"SELECT min({column}), max({column}) FROM {scan_parquet(batches[name])}")
                first, last = bounds.fetchall()[0]
            hours = (as_of - last).total_seconds() / 3600 if last else None
            self.db.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?)", [name, count, first, last, hours])

    def report_batches(self, outcomes: Mapping[int, Outcome]) -> None:
        """Report the checks on the table of batches that are not met."""
        source = self.report.source
        for check in self.checks.batches:
            outcome = outcomes[check.number]
            if not outcome.passed:
                names = ", ".join(outcome.rows)
                self.report.add(check, outcome, f"{source} {names}" if names else f"{source}, its batches")

    def quarantine_rows(self, outcomes: Mapping[int, Outcome], path: Path) -> None:
        """Report the row checks that are not met, and quarantine the rows that do not meet a critical one."""
        critical = []
        for check in self.checks.rows:
            outcome = outcomes[check.number]
            if not outcome.passed and check.critical and check.row_level and outcome.unexpected:
                critical.append(check)
            elif not outcome.passed:
                self.report.add(check, outcome)
        if not critical:
            return
        limit = max(MAX_BAD_ROWS, int(self.config.tolerance * sum(self.report.counts.values())) + 1)
        bad_rows = {
            number: outcome.rows for number, outcome in self.runner.run("rows", critical, quarantine.ROW, limit).items()
        }
        for check in [check for check in critical if not bad_rows[check.number]]:
            self.report.add(check, outcomes[check.number])  # a few types count the rows without listing them
            critical.remove(check)
        if not critical:
            return
        self.report.bad = quarantine.record_bad_rows(self.db, bad_rows)
        self.report.quarantine = quarantine.write_quarantine(self.db, "rows", critical, path)
        self.report.warnings += [
            f"{outcomes[check.number].sentence(check, self.report.source)} Quarantined." for check in critical
        ]
        self._fail_batches({check.number: check.label for check in critical})
        self.report.failed += [
            f"{self.report.source}: more than {limit:,} rows do not meet {check.label}; the quarantine lists the first."
            for check in critical
            if outcomes[check.number].unexpected > limit
        ]

    def _fail_batches(self, labels: Mapping[int, str]) -> None:
        """Fail each batch with more bad rows than the source tolerates."""
        tolerance = self.config.tolerance
        for name, bad in self.report.bad.items():
            count = self.report.counts[name]
            if bad < count and bad / count <= tolerance:
                continue
            reasons = self.db.execute(
                "SELECT fails, count(*) AS rows FROM bad JOIN names ON number >> 40 = place WHERE batch = ? "
                "GROUP BY fails ORDER BY rows DESC, fails",
                [name],
            ).fetchall()
            because = ", ".join(f"{labels[number]} ({rows:,})" for number, rows in reasons)
            share = f"{bad / count:.1%}, tolerated {tolerance:.1%}"
            rows = f"all {count:,}" if bad == count else f"{bad:,} of {count:,}"
            self.report.failed.append(f"{self.report.source} {name}: {rows} rows are bad ({share}): {because}.")


def _count_rows(source: str, name: str, path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"The batch {name} of source {source} can't be read.",
            where=str(path),
            found=str(error).splitlines()[0],
            todo="Remove the file: the next run writes it again.",
        ) from error


def _schema_differences(source: str, batches: Mapping[str, Path]) -> list[str]:
    """One sentence for each column that is not in every batch, or of another type than in the first."""
    import pyarrow.parquet as pq

    shapes = {}
    for name, path in batches.items():
        schema = pq.read_schema(path)
        shapes[name] = dict(zip(schema.names, schema.types, strict=True))
    first, expected = next(iter(shapes.items()), ("", {}))
    differences = []
    for name, shape in shapes.items():
        for column in [*expected, *(column for column in shape if column not in expected)]:
            actual, wanted = (str(types.get(column, "missing")) for types in (shape, expected))
            if actual != wanted:
                differences.append(f"{source} {name}: column {column} is {actual}, but {wanted} in {first}.")
    return differences
