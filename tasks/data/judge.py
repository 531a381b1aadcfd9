"""Great Expectations at work on DuckDB's tables: runs a list of checks in one validation, and writes Data Docs."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.data.config import Expectation
from tasks.data.expectations import COLUMN_ARGUMENTS
from tasks.foundation.errors import DataError
from tasks.foundation.files import whole

if TYPE_CHECKING:
    import duckdb
    from great_expectations.expectations.expectation import Expectation as GxExpectation

SHOWN = 20  # unexpected values that a report shows


@dataclass(frozen=True)
class Check:
    """An expectation as the case states it, and as it is put to Great Expectations."""

    at: int  # its number in the list, by which its result is found again
    stated: Expectation
    asked: GxExpectation
    columns: tuple[str, ...]
    row_level: bool  # judges each row by itself
    counted: bool = False  # asked of the number of rows with a row's key
    looked_up: bool = False  # asked of the value as found in another table

    @property
    def critical(self) -> bool:
        return self.stated.severity == "critical"

    @property
    def label(self) -> str:
        return " ".join([self.stated.expect, ", ".join(self.columns)]).strip()

    @property
    def allowed(self) -> str:
        """What it asks for, and why, as the end of a sentence."""
        given = {name: value for name, value in self.stated.arguments.items() if name not in COLUMN_ARGUMENTS}
        if self.stated.values_of:
            given["one of"] = self.stated.values_of
        asked = ", ".join(f"{name} {value}" for name, value in given.items())
        return "; ".join(part for part in (asked, self.stated.why) if part)


@dataclass(frozen=True)
class Outcome:
    """What Great Expectations said of one check."""

    passed: bool
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def unexpected(self) -> int:
        return int(self.result.get("unexpected_count") or 0)

    def sentence(self, check: Check, of: str) -> str:
        """What was found and what is allowed, for a check that is not met."""
        if check.row_level and self.unexpected:
            values = int(self.result.get("element_count") or 0) - int(self.result.get("missing_count") or 0)
            shown = list(dict.fromkeys(map(_show, self.result.get("partial_unexpected_list") or [])))[:3]
            such = f", such as {', '.join(shown)}" if any(shown) and not check.counted else ""
            found = f"{self.unexpected:,} of {values:,} {'rows' if check.counted else 'values'}{such}"
        else:
            found = _show(self.result.get("observed_value"))
            mismatched = (self.result.get("details") or {}).get("mismatched") or {}
            found += "".join(f"; {name}: {_show(values)}" for name, values in mismatched.items() if values)
        allowed = f" ({check.allowed})" if check.allowed else ""
        return f"{of}: {check.label} is not met{allowed}: found {found}."


class Judge:
    """One ephemeral context over one open database; nothing is written before `write_docs`."""

    def __init__(self, database: duckdb.DuckDBPyConnection, title: str) -> None:
        os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")  # read while importing
        import great_expectations as gx
        from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults

        from tasks.data.dialect import URL, engine_arguments

        config = DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            analytics_enabled=False,
            progress_bars={"globally": False, "metric_calculations": False},  # type: ignore[arg-type]
        )
        self._title = title
        self._context: Any = gx.get_context(mode="ephemeral", project_config=config)
        sources: Any = self._context.data_sources
        self._source: Any = sources.add_sql(
            "duckdb", connection_string=URL, kwargs=engine_arguments(database), create_temp_table=False
        )

    def judge(self, view: str, checks: Sequence[Check]) -> dict[int, Outcome]:
        """Put all checks to one view in one validation; results by the checks' numbers.

        Raises: DataError naming the check that could not be computed.
        """
        return self._run(
            view, f"{self._title}_{view}", checks, {"result_format": "BASIC", "partial_unexpected_count": SHOWN}
        )

    def find_rows(self, view: str, index: str, checks: Sequence[Check], at_most: int) -> dict[int, list[Any]]:
        """The `index` values of all rows that do not meet row-level checks, by the checks' numbers."""
        wanted = {
            "result_format": "COMPLETE",
            "unexpected_index_column_names": [index],
            "partial_unexpected_count": at_most,  # the SQL engines cut even complete lists off at this
            "exclude_unexpected_values": True,
            "return_unexpected_index_query": False,
        }
        found = self._run(view, f"{self._title}_{view}_found", checks, wanted)
        return {
            at: [value for entry in outcome.result.get("unexpected_index_list") or [] for value in entry[index]]
            for at, outcome in found.items()
        }

    def write_docs(self, folder: Path) -> Path:
        """Write Data Docs of everything judged so far, as a static site; its index.html."""
        if folder.is_dir():
            shutil.rmtree(folder)  # a report of an earlier try
        with whole(folder) as temporary, _silence():
            page = {"view": {"module_name": "tasks.data.views", "class_name": "PageView"}}
            index = {"view": {"module_name": "tasks.data.views", "class_name": "IndexView"}}
            site = {
                "class_name": "SiteBuilder",
                "show_how_to_buttons": False,
                "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(temporary)},
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder", **index},
                "site_section_builders": {"expectations": page, "validations": page, "profiling": "None"},
            }
            self._context.add_data_docs_site("local", site)
            self._context.build_data_docs(site_names=["local"])
        return folder / "index.html"

    def _run(self, view: str, name: str, checks: Sequence[Check], result_format: dict) -> dict[int, Outcome]:
        import great_expectations as gx

        if not checks:
            return {}
        asked = [check.asked.copy(deep=True, update={"id": None, "meta": {"at": check.at}}) for check in checks]
        suite = self._context.suites.add(gx.ExpectationSuite(name=name, expectations=asked))
        batch = self._source.add_table_asset(name, table_name=view).add_batch_definition_whole_table("whole")
        definition = self._context.validation_definitions.add(
            gx.ValidationDefinition(name=name, data=batch, suite=suite)
        )
        with _silence():
            validation = definition.run(result_format=result_format)
        outcomes = {}
        for result in validation.results:
            at = result.expectation_config.meta["at"]
            if message := _crash(result.exception_info or {}):
                check = next(check for check in checks if check.at == at)
                raise DataError(
                    f"The expectation {check.label} could not be computed.",
                    where=f"source {self._title}, {view}",
                    found=message,
                    todo="Correct its arguments in case.yaml, or the column's type in the source.",
                )
            outcomes[at] = Outcome(passed=bool(result.success), result=dict(result.result))
        return outcomes


def _show(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_show(part) for part in value if part is not None)  # a looked-up pair is a value and nothing
    if isinstance(value, dict):
        return ", ".join(f"{name} {_show(part)}" for name, part in value.items())
    return f"{value:.6g}" if isinstance(value, float) else "nothing" if value is None else str(value)


def _crash(info: dict) -> str:
    """The message of an exception inside an expectation, which reads `success: false` otherwise."""
    for entry in [info] if "raised_exception" in info else info.values():
        if entry.get("raised_exception"):
            return str(entry.get("exception_message") or "unknown").strip().splitlines()[0]
    return ""


@contextmanager
def _silence() -> Iterator[None]:
    """Great Expectations logs a traceback for what we raise as a clear error."""
    logger = logging.getLogger("great_expectations")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
