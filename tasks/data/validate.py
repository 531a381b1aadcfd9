"""Validate a source's new batches: what Great Expectations says, which rows are put aside, which batches fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.data import quarantine as rows_of
from tasks.data.config import Expectation, Source
from tasks.data.expectations import STRUCTURE, build, columns_of, is_row_level
from tasks.data.judge import Check, Judge, Outcome
from tasks.data.results import Validation
from tasks.foundation.errors import DataError

if TYPE_CHECKING:
    import duckdb

MOST_FOUND = 1_000_000  # rows listed for one check; where more are bad, a batch fails anyway
BATCH_COLUMNS = ("batch", "rows", "first", "last", "hours_since_last")


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

    batches = dict(sorted(batches.items()))
    quarantine.unlink(missing_ok=True)
    counts = {name: _count_rows(source, name, path) for name, path in batches.items()}
    filled = {name: path for name, path in batches.items() if counts[name]}
    report = _Report(source, counts)
    report.failed += [f"{source} {name} is empty." for name, count in counts.items() if not count]
    if not batches:
        report.failed.append(f"{source} has no new batch.")
    report.failed += _differences(source, filled)
    if not filled or len(report.failed) > len(batches) - len(filled):
        return report.told()
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        try:
            _validate(db, report, filled, config, references, as_of, docs, quarantine, clean)
        except duckdb.Error as error:
            raise DataError(
                f"Source {source} could not be validated.",
                where=", ".join(map(str, filled.values())),
                found=str(error).strip().splitlines()[0],
                todo="Compare the columns and their types with the source's expectations.",
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

    def say(self, check: Check, text: str) -> None:
        (self.failed if check.critical else self.warnings).append(text)

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


@dataclass(frozen=True)
class _Checks:
    structure: tuple[Check, ...]
    rows: tuple[Check, ...]
    batches: tuple[Check, ...]


def _validate(
    db: duckdb.DuckDBPyConnection,
    report: _Report,
    batches: Mapping[str, Path],
    config: Source,
    references: Mapping[str, Path],
    as_of: datetime,
    docs: Path,
    quarantine: Path,
    clean: Path,
) -> None:
    source = report.source
    rows_of.make_views(db, batches, report.counts)
    checks = _make_checks(db, source, config, references)
    report.expectations = len(checks.structure) + len(checks.rows) + len(checks.batches)
    judge = Judge(db, source)

    db.execute("CREATE VIEW columns AS FROM plain")
    said = judge.judge("columns", checks.structure)
    for check in checks.structure:
        if not said[check.at].passed:
            report.say(check, _sentence(source, check, said[check.at]))
    if any(check.critical and not said[check.at].passed for check in checks.structure):
        report.docs = judge.write_docs(docs)  # rows of another shape would only crash the other checks
        return

    lookups = {
        (check.columns[0], str(check.stated.values_of)): _reference(source, check.stated, references)
        for check in checks.rows
        if check.looked_up
    }
    rows_of.make_judged_view(db, "rows", config.key, lookups)
    said = judge.judge("rows", checks.rows)
    _describe_batches(db, config, report.counts, as_of)
    said_of_batches = judge.judge("batches", checks.batches)
    report.docs = judge.write_docs(docs)

    _tell_of_batches(db, judge, report, checks.batches, said_of_batches)
    aside = []
    for check in checks.rows:
        outcome = said[check.at]
        if outcome.passed:
            continue
        if check.critical and check.row_level and outcome.unexpected:
            aside.append(check)
        else:
            report.say(check, _sentence(source, check, outcome))
    if aside:
        found = judge.find_rows("rows", rows_of.ROW, aside, MOST_FOUND)
        report.bad = rows_of.note_bad_rows(db, found)
        report.quarantine = rows_of.write_quarantine(db, "rows", aside, quarantine)
        report.warnings += [f"{_sentence(source, check, said[check.at])} Put aside." for check in aside]
        _tell_of_tolerance(db, report, config.tolerance, aside)
        for check in aside:
            if said[check.at].unexpected > MOST_FOUND:
                report.failed.append(f"{source}: more than {MOST_FOUND:,} rows fail {check.label}; not all are listed.")
    if not report.failed:
        rows_of.write_clean(db, batches, report.bad, clean)


def _make_checks(db: duckdb.DuckDBPyConnection, source: str, config: Source, references: Mapping[str, Path]) -> _Checks:
    """The stated expectations, and those on the key, which always hold; numbered through."""
    columns = [name for (name, *_) in db.execute("DESCRIBE plain").fetchall()]
    stated = [*_on_key(config), *(e for e in config.expectations if not _is_on_key(e, config))]
    for expectation in stated:
        _require_columns(f"Source {source}", expectation, columns)
    for expectation in config.batch_expectations:
        _require_columns(f"The table of batches of {source}", expectation, BATCH_COLUMNS)
    structure, rows, batches = [], [], []
    for at, expectation in enumerate([*stated, *config.batch_expectations]):
        on_batches = at >= len(stated)
        check = _make_check(db, at, source, expectation, config, {} if on_batches else references)
        (batches if on_batches else structure if expectation.expect in STRUCTURE else rows).append(check)
    return _Checks(tuple(structure), tuple(rows), tuple(batches))


def _on_key(config: Source) -> list[Expectation]:
    """What holds of a key even if nobody states it; a stated reason is kept."""
    reasons = {e.expect: e.why for e in config.expectations if _is_on_key(e, config) and e.why}
    given = {e.arguments.get("column") for e in config.expectations if e.expect == "column_values_to_not_be_null"}
    complete = [
        Expectation.model_validate(
            {"expect": "column_values_to_not_be_null", "column": column, "why": "part of the key"}
        )
        for column in config.key
        if column not in given
    ]
    named = {"column": config.key[0]} if len(config.key) == 1 else {"column_list": list(config.key)}
    kind = "column_values_to_be_unique" if len(config.key) == 1 else "compound_columns_to_be_unique"
    unique = {"expect": kind, **named, "why": reasons.get(kind, "the key names one row")}
    return [*complete, Expectation.model_validate(unique)]


def _is_on_key(expectation: Expectation, config: Source) -> bool:
    unique = ("column_values_to_be_unique", "compound_columns_to_be_unique")
    return expectation.expect in unique and set(columns_of(expectation)) == set(config.key)


def _make_check(
    db: duckdb.DuckDBPyConnection,
    at: int,
    source: str,
    expectation: Expectation,
    config: Source,
    references: Mapping[str, Path],
) -> Check:
    columns = columns_of(expectation)
    counted = looked_up = False
    if _is_on_key(expectation, config):
        # one count in DuckDB instead of the joins by which Great Expectations finds rows that are not unique
        counted = True
        ask = Expectation.model_validate({"expect": "column_values_to_be_between", "column": rows_of.COPIES})
        description = f"No two rows have the same {', '.join(columns)}."
        asked = build(source, ask, min_value=1, max_value=1, description=description, notes=expectation.why or None)
    elif expectation.values_of and expectation.expect == "column_values_to_be_in_set":
        # thousands of allowed values, given to Great Expectations as a set, are copied two thousand times
        looked_up = True
        there = rows_of.lookup_name(columns[0], expectation.values_of)
        others = {name: value for name, value in expectation.arguments.items() if name != "column"}
        pair = {"expect": "column_pair_values_to_be_equal", "column_A": columns[0], "column_B": there}
        ask = Expectation.model_validate({**pair, "severity": expectation.severity, "why": expectation.why, **others})
        description = f"Values of {columns[0]} are among those of {expectation.values_of}."
        asked = build(source, ask, ignore_row_if="both_values_are_missing", description=description)
    elif expectation.values_of:
        path = _reference(source, expectation, references)
        column = rows_of.quote(expectation.values_of.partition(".")[2])
        found = db.execute(
            f"SELECT DISTINCT {column} FROM {rows_of.scan(path)} WHERE {column} IS NOT NULL ORDER BY ALL"
        )
        asked = build(source, expectation, value_set=[value for (value,) in found.fetchall()])
    else:
        asked = build(source, expectation)
    return Check(at, expectation, asked, columns, is_row_level(asked), counted=counted, looked_up=looked_up)


def _require_columns(what: str, expectation: Expectation, columns: Sequence[str]) -> None:
    lacking = [column for column in columns_of(expectation) if column not in columns]
    if lacking and expectation.expect not in STRUCTURE:
        raise DataError(
            f"{what} lacks {', '.join(lacking)}.",
            where=f"expectation {expectation.expect}",
            found=", ".join(columns),
            todo="Deliver the column, or correct the expectation in case.yaml.",
        )


def _reference(source: str, expectation: Expectation, references: Mapping[str, Path]) -> Path:
    table = str(expectation.values_of).partition(".")[0]
    if table not in references:
        raise DataError(
            f"Source {source} is checked against {table}, of which there is no data.",
            where=f"expectation {expectation.expect}, values_of {expectation.values_of}",
            found=", ".join(references) or "no other table",
            todo=f"Prepare {table} first, or correct values_of in case.yaml.",
        )
    return references[table]


def _describe_batches(
    db: duckdb.DuckDBPyConnection, config: Source, counts: Mapping[str, int], as_of: datetime
) -> None:
    """Make the table that batch_expectations are about."""
    db.execute(
        "CREATE TABLE batches (batch VARCHAR, rows BIGINT, first TIMESTAMPTZ, last TIMESTAMPTZ, hours_since_last DOUBLE)"
    )
    time = f"n.{rows_of.quote(config.time)}::TIMESTAMPTZ" if config.time else "NULL::TIMESTAMPTZ"
    db.execute(
        f"WITH seen AS (SELECT batch, min({time}) AS first, max({time}) AS last FROM numbered n "
        f"JOIN spans s ON n.{rows_of.ROW} >= s.start AND n.{rows_of.ROW} < s.stop GROUP BY batch) "
        "INSERT INTO batches SELECT c.batch, c.rows, first, last, epoch(?::TIMESTAMPTZ - last) / 3600 "
        "FROM (SELECT unnest(?::VARCHAR[]) AS batch, unnest(?::BIGINT[]) AS rows) c LEFT JOIN seen USING (batch) "
        "ORDER BY c.batch",
        [as_of, list(counts), list(counts.values())],
    )


def _tell_of_batches(
    db: duckdb.DuckDBPyConnection,
    judge: Judge,
    report: _Report,
    checks: Sequence[Check],
    said: Mapping[int, Outcome],
) -> None:
    unmet = [check for check in checks if not said[check.at].passed]
    names = judge.find_rows("batches", "batch", [check for check in unmet if check.row_level], MOST_FOUND)
    for check in unmet:
        of = (
            f"{report.source} {', '.join(names[check.at])}" if names.get(check.at) else f"{report.source} (its batches)"
        )
        report.say(check, _sentence(of, check, said[check.at]))


def _tell_of_tolerance(
    db: duckdb.DuckDBPyConnection, report: _Report, tolerance: float, checks: Sequence[Check]
) -> None:
    for name, bad in report.bad.items():
        count = report.counts[name]
        if bad < count and bad / count <= tolerance:
            continue
        by_check = Counter(
            dict(
                db.execute(
                    "SELECT fails, count(*) FROM bad JOIN spans ON number >= start AND number < stop WHERE batch = ? "
                    "GROUP BY fails ORDER BY fails",
                    [name],
                ).fetchall()
            )
        )
        labels = {check.at: check.label for check in checks}
        reasons = ", ".join(f"{labels[at]} ({number:,})" for at, number in by_check.most_common())
        share = "all" if bad == count else f"{bad:,} of"
        report.failed.append(
            f"{report.source} {name}: {share} {count:,} rows are bad ({bad / count:.1%}, tolerated {tolerance:.1%}): {reasons}."
        )


def _sentence(source: str, check: Check, outcome: Outcome) -> str:
    """What was found and what is allowed, for one check that is not met."""
    result = outcome.result
    if check.row_level and outcome.unexpected:
        of = int(result.get("element_count") or 0) - int(result.get("missing_count") or 0)
        shown = list(dict.fromkeys(map(_show, result.get("partial_unexpected_list") or [])))[:3]
        such = f", such as {', '.join(shown)}" if shown and not check.counted else ""
        found = f"{outcome.unexpected:,} of {of:,} values{such}"
    else:
        found = _show(result.get("observed_value"))
        mismatched = (result.get("details") or {}).get("mismatched") or {}
        found += "".join(f", {name}: {', '.join(map(str, values))}" for name, values in mismatched.items() if values)
    allowed = f" ({check.allowed})" if check.allowed else ""
    return f"{source}: {check.label} is not met{allowed}: found {found}."


def _show(value: object) -> str:
    if isinstance(value, (list, tuple)):
        # a looked-up pair is the value and nothing
        return ", ".join(str(part) for part in value if part is not None)
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return f"{value:.4g}" if isinstance(value, float) else "nothing" if value is None else str(value)


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
            here, there = shape.get(column), expected.get(column)
            if here != there:
                said.append(
                    f"{source} {name}: column {column} is {here or 'missing'}, but {there or 'missing'} in {first}."
                )
    return said
