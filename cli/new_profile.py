"""Profiles a file for a new case: reads it, shows what stands in it, and plans what its columns are used for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.new_columns import TablePlan, decisions, plan_table
from cli.new_options import TableOptions, check_options, chosen_task
from cli.new_table import write_tabular_case
from tasks.core.display import one_line
from tasks.core.duckdb import connect
from tasks.core.errors import DataError
from tasks.core.files import temporary_folder
from tasks.core.settings import settings
from tasks.data.profile.measure import profile_table
from tasks.data.profile.page import facts, values_of, write_page
from tasks.data.profile.results import TableProfile
from tasks.data.profile.single_columns import score_columns

if TYPE_CHECKING:
    import duckdb


MAX_SHOWN = 60  # columns in the terminal


@dataclass(frozen=True)
class ProfiledFile:
    """A file with its profile and, with a target, the plan of its columns."""

    profile: TableProfile
    plan: TablePlan | None
    page: Path

    def case_lines(self, uri: str) -> tuple[list[str], str]:
        """The lines of a case.yaml, and a summary of the decisions."""
        assert self.plan is not None
        lines = write_tabular_case(self.plan, {"uri": uri})
        features = f"{len(self.plan.features)} features of {self.plan.known:,} rows, to predict {self.plan.target.name}"
        shown = [f"  {group}: {f'{name}, ' if name else ''}{why}" for group, name, why in decisions(self.plan)]
        return lines, "\n".join([features, *map(one_line, shown[:40]), f"profile: {self.page}"])


def profile_file(name: str, file: Path, options: TableOptions) -> ProfiledFile:
    """Read and profile a file, and write the profile's page beside the case's state.

    Raises: DataError when it can't be read, InputError when the options don't fit it.
    """
    with open_file(file) as db:
        profile, frame = profile_table(db, file.name)
        plan = None
        if options.target is not None:
            check_options(profile, options)
            task = chosen_task(profile.column(options.target), options)
            profile = score_columns(profile, frame, options.target, task)
            plan = plan_table(profile, options)
    page = write_page(profile, [*decisions(plan)] if plan else [], settings().state / "profiles" / f"{name}.html")
    return ProfiledFile(profile, plan, page)


@contextmanager
def open_file(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database whose table `raw` holds the file."""
    import duckdb

    from tasks.data.sources import read_raw

    with temporary_folder("profile") as work, connect() as db:
        try:
            read_raw(db, path.stem, path, Path(work))
        except duckdb.Error as error:
            found = str(error).strip().splitlines()[0]
            raise DataError("The file is no table.", where=str(path), found=found, todo="Correct it.") from error
        yield db


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
