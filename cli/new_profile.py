"""Profiles a file for a new case: reads it, shows what stands in it, and plans what its columns are used for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.new_columns import TablePlan, decisions, plan_table
from cli.new_files import DataFiles
from cli.new_options import TableOptions, check_options, chosen_task
from cli.new_table import SourceLines
from tasks.core.display import one_line
from tasks.core.duckdb import connect
from tasks.core.errors import DataError
from tasks.core.files import temporary_folder
from tasks.core.settings import settings
from tasks.data.config import Source
from tasks.data.profile.measure import profile_table
from tasks.data.profile.page import facts, values_of, write_page
from tasks.data.profile.results import TableProfile
from tasks.data.profile.single_columns import score_columns
from tasks.data.profile.texts import shared_words
from tasks.data.reading.config import FileFormat

if TYPE_CHECKING:
    import duckdb

    from tasks.data.reading.report import ReadReport


MAX_SHOWN, MAX_EXAMPLES = 60, 3  # columns in the terminal; rows or columns in a note


@dataclass(frozen=True)
class ProfiledFile:
    """A file with its profile and, with a target, the plan of its columns."""

    data: DataFiles
    profile: TableProfile
    plan: TablePlan | None
    page: Path
    format: Mapping[str, str]  # as the case must name it
    shared: frozenset[str]  # words for a missing value that are values of other columns

    def source(self) -> SourceLines:
        """What the case reads the files by."""
        columns, words = stated_columns(self.profile, self.shared)
        readings = [(c.name, c.reading) for c in self.profile.columns if c.reading and c.name not in words]
        missing = list(dict.fromkeys(word for _, reading in readings for word in reading.words))
        return SourceLines(self.data.uri, self.data.query, columns, missing, self.format, words)

    def summary(self, plan: TablePlan) -> str:
        """What the case is about, and each decision."""
        features = f"{len(plan.features)} features of {plan.known:,} rows, to predict {plan.target.name}"
        shown = [f"  {group}: {f'{name}, ' if name else ''}{why}" for group, name, why in decisions(plan)]
        return "\n".join([features, *map(one_line, shown[:40]), f"profile: {self.page}"])


def profile_file(name: str, data: DataFiles, options: TableOptions) -> ProfiledFile:
    """Read and profile a file, and write the profile's page beside the case's state.

    Raises: DataError when it can't be read, InputError when the options don't fit it.
    """
    with open_files(data.name, data.paths) as (db, report):
        profile, frame = profile_table(db, data.name)
        profile = profile.model_copy(update={"notes": tuple(reading_notes(report))})
        plan = None
        if options.target is not None:
            check_options(profile, options)
            task = chosen_task(profile.column(options.target), options)
            profile = score_columns(profile, frame, options.target, task)
            plan = plan_table(profile, options)
        shared = frozenset(shared_words(db, profile))
    page = write_page(profile, [*decisions(plan)] if plan else [], settings().state / "profiles" / f"{name}.html")
    return ProfiledFile(data, profile, plan, page, stated_format(report.format), shared)


def stated_columns(profile: TableProfile, shared: Collection[str]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The columns in the words of case.yaml, and those whose words for a missing value are values of other columns."""
    columns: dict[str, Any] = {}
    words = {}
    for column in profile.columns:
        reading = column.reading
        if reading is not None and reading.words.keys() & set(shared):
            columns[column.name], words[column.name] = "text", [*reading.words]
        elif reading is not None and reading.format:
            columns[column.name] = {"type": reading.type, "format": reading.format}
        else:
            columns[column.name] = column.read_type
    return columns, words


def profile_columns(source: Source, files: Sequence[Path]) -> dict[str, Any]:
    """The columns that a new case of these files would state; what stands for a missing value is as in the source."""
    with open_files(source.uri, files, source) as (db, _):
        profile, _ = profile_table(db, source.uri)
        return stated_columns(profile, shared_words(db, profile))[0]


def reading_notes(report: ReadReport) -> Iterator[str]:
    """What a person must know of how the file was read."""
    if report.rejected:
        lines = "; ".join(row.sentence() for row in report.first[:MAX_EXAMPLES])
        yield f"{report.rejected:,} of {report.records:,} rows are quarantined: {lines}"
    if report.trimmed:
        cells, columns = sum(report.trimmed.values()), [*report.trimmed]
        more = f" and {len(columns) - MAX_EXAMPLES} more" if len(columns) > MAX_EXAMPLES else ""
        yield f"blanks around {cells:,} values are cut off, in {', '.join(columns[:MAX_EXAMPLES])}{more}"


def stated_format(form: FileFormat) -> dict[str, str]:
    """The parts of a file's format that a case must name."""
    usual = {"encoding": ("", "utf-8", "utf-8-sig", "utf_8"), "delimiter": ("", ","), "decimal": ("", ".")}
    return {key: value for key, value in form.model_dump().items() if value not in usual.get(key, ("",))}


@contextmanager
def open_files(
    name: str, files: Sequence[Path], like: Source | None = None, *, verbatim: bool = False
) -> Iterator[tuple[duckdb.DuckDBPyConnection, ReadReport]]:
    """A database whose table `raw` holds the files, and what reading it found; its types come from all rows.

    `like`: a source whose format and words for missing values apply; else a text that is no UTF-8 is read as Windows
    and Western Europe write it. `verbatim`: the files hold instruction pairs.
    Raises: DataError.
    """
    from tasks.data.reading.files import read_files

    base = like or Source.model_validate({"uri": f"file://{name}", "key": ["row"]})
    problem: DataError | None = None
    for encoding in [base.format.encoding] if like else ["", "cp1252"]:
        with temporary_folder("profile") as work, connect() as db:
            form = base.format.model_copy(update={"encoding": encoding})
            source = base.model_copy(update={"columns": {}, "format": form})
            try:
                report = read_files(db, name, source, files=files, work=Path(work), verbatim=verbatim)
            except DataError as error:
                problem = problem or error
                continue
            yield db, report
            return
    assert problem is not None
    raise problem


def describe_table(profiled: ProfiledFile) -> str:
    """The profile for the terminal."""
    from rich.console import Console

    from tasks.core.console import PlainTable

    profile = profiled.profile
    headers = ["column", "type", "missing", "distinct", "values"]
    table = PlainTable(*headers, *([f"{profile.metric} alone"] if profile.metric else []))
    for column in profile.columns[:MAX_SHOWN]:
        form = f" {column.reading.format}" if column.reading and column.reading.format else ""
        missing = f"{column.empty / profile.rows:.1%}" if column.empty else "-"
        score = [] if not profile.metric else ["" if column.alone is None else f"{column.alone:.3f}"]
        table.add_row(
            column.name[:40], column.read_type + form, missing, f"{column.distinct:,}", values_of(column)[:70], *score
        )
    console = Console(width=160, highlight=False, markup=False, emoji=False)
    with console.capture() as capture:
        console.print(table)
    head = ", ".join(f"{value} {name}" if name != "target" else f"target {value}" for name, value in facts(profile))
    more = len(profile.columns) - MAX_SHOWN
    lines = [head, capture.get().rstrip(), *([f"and {more:,} more columns"] if more > 0 else [])]
    if profiled.plan:
        lines += [
            f"  {group}: {f'{one_line(name)}, ' if name else ''}{one_line(why)}"
            for group, name, why in decisions(profiled.plan)
        ]
    return "\n".join([*lines, f"profile: {profiled.page}"])
