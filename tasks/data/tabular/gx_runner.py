"""Runs Great Expectations on DuckDB's tables: a list of checks in one validation, and Data Docs."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import DataError
from tasks.core.files import atomic_path
from tasks.data.tabular.checks import Check

if TYPE_CHECKING:
    import duckdb

MAX_SHOWN = 20  # unexpected values in a report


@dataclass(frozen=True)
class Outcome:
    """Great Expectations' result of one check."""

    passed: bool
    result: dict[str, Any]
    rows: list[Any]  # the index values of rows that do not meet it, if an index was requested

    @property
    def unexpected(self) -> int:
        return int(self.result.get("unexpected_count") or 0)

    def sentence(self, check: Check, subject: str) -> str:
        """What was found and what is allowed, for a check that is not met."""
        if check.row_level and self.unexpected:
            values = int(self.result.get("element_count") or 0) - int(self.result.get("missing_count") or 0)
            shown = list(dict.fromkeys(map(_show, self.result.get("partial_unexpected_list") or [])))[:3]
            examples = f", such as {', '.join(shown)}" if any(shown) and not check.count_column else ""
            found = f"{self.unexpected:,} of {values:,} {'rows' if check.count_column else 'values'}{examples}"
        else:
            listed = self.result.get("partial_unexpected_list")
            found = _show(self.result.get("observed_value") or (listed and listed[:MAX_SHOWN]))
            mismatched = (self.result.get("details") or {}).get("mismatched") or []
            parts = mismatched.items() if isinstance(mismatched, dict) else []
            found += "".join(f"; {name}: {_show(values)}" for name, values in parts if values)
        allowed = f" ({check.allowed})" if check.allowed else ""
        return f"{subject}: {check.label} is not met{allowed}: found {found}."


class GxRunner:
    """One ephemeral context over one open database; nothing is written before `write_docs`."""

    def __init__(self, database: duckdb.DuckDBPyConnection, title: str, run: str) -> None:
        os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")  # read while importing
        import great_expectations as gx
        from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults

        from tasks.data.tabular.duckdb_dialect import URL, engine_arguments

        config = DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            analytics_enabled=False,
            progress_bars={"globally": False, "metric_calculations": False},  # type: ignore[arg-type]
        )
        self._title, self._run_id = title, gx.RunIdentifier(run_name=run)
        self._context: Any = gx.get_context(mode="ephemeral", project_config=config)
        sources: Any = self._context.data_sources
        self._source: Any = sources.add_sql(
            "duckdb", connection_string=URL, kwargs=engine_arguments(database), create_temp_table=False
        )
        self._views: dict[str, Any] = {}
        self._runs = 0

    def run(self, view: str, checks: Sequence[Check], index: str = "", limit: int = MAX_SHOWN) -> dict[int, Outcome]:
        """Run all checks on one view in one validation; outcomes by the checks' numbers.

        With `index`, outcomes list that column's values for up to `limit` rows that do not meet a check.
        Raises: DataError naming the check that could not be computed.
        """
        if not checks:
            return {}
        result_format: dict[str, Any] = {"result_format": "BASIC", "partial_unexpected_count": MAX_SHOWN}
        if index:
            result_format = {
                "result_format": "COMPLETE",
                "unexpected_index_column_names": [index],
                "partial_unexpected_count": limit,  # the SQL engines cut even complete lists off at this
                "exclude_unexpected_values": True,
                "return_unexpected_index_query": False,
            }
        with _silence():
            validation = self._define(view, checks).run(result_format=result_format, run_id=self._run_id)
        outcomes = {}
        for result in validation.results:
            number = result.expectation_config.meta["at"]
            if message := _exception_message(result.exception_info or {}):
                label = next(check.label for check in checks if check.number == number)
                raise DataError(
                    f"The expectation {label} could not be computed.",
                    where=f"source {self._title}, its {view}",
                    found=message,
                    todo="Correct its arguments in case.yaml, or the column's type in the source.",
                )
            listed = result.result.get("unexpected_index_list") or []
            rows = [row for entry in listed for row in entry[index]] if index else []
            outcomes[number] = Outcome(bool(result.success), dict(result.result), rows)
        return outcomes

    def _define(self, view: str, checks: Sequence[Check]) -> Any:
        import great_expectations as gx

        if view not in self._views:
            asset = self._source.add_table_asset(f"{self._title}_{view}", table_name=view)
            self._views[view] = asset.add_batch_definition_whole_table("whole")
        self._runs += 1
        name = f"{self._title}_{view}" if self._runs <= len(self._views) else f"{self._title}_{view}_{self._runs}"
        expectations = [c.computed.copy(deep=True, update={"id": None, "meta": {"at": c.number}}) for c in checks]
        suite = self._context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
        definition = gx.ValidationDefinition(name=name, data=self._views[view], suite=suite)
        return self._context.validation_definitions.add(definition)

    def write_docs(self, folder: Path) -> Path:
        """Write Data Docs of all runs so far, as a static site; returns its index.html."""
        if folder.is_dir():
            shutil.rmtree(folder)  # a report of an earlier attempt
        with atomic_path(folder) as temporary, _silence():
            page = {"view": {"module_name": "tasks.data.tabular.data_docs_views", "class_name": "PageView"}}
            index = {"view": {"module_name": "tasks.data.tabular.data_docs_views", "class_name": "IndexView"}}
            site = {
                "class_name": "SiteBuilder",
                "show_how_to_buttons": False,
                "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(temporary)},
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder", **index},
                "site_section_builders": {"expectations": page, "validations": page, "profiling": "None"},
            }
            self._context.add_data_docs_site("local", site)
            self._context.build_data_docs(site_names=["local"])
            for path in (temporary / "static").rglob("*"):  # 4 MB of fonts and tutorials that no page shows
                if path.is_file() and path.name != "favicon.ico":
                    path.unlink()
        return folder / "index.html"


def _show(value: object) -> str:
    if isinstance(value, tuple):
        parts = [_show(part) for part in value if part is not None]  # a looked-up pair is a value and nothing
        return parts[0] if len(parts) == 1 else f"({', '.join(parts)})"
    if isinstance(value, list):
        return ", ".join(map(_show, value))
    if isinstance(value, dict):
        return f"({', '.join(f'{name} {_show(part)}' for name, part in value.items())})"
    return f"{value:.6g}" if isinstance(value, float) else "nothing" if value is None else str(value)


def _exception_message(info: dict[str, Any]) -> str:
    """The message of an exception inside an expectation, whose result is only `success: false`."""
    for entry in [info] if "raised_exception" in info else info.values():
        if entry.get("raised_exception"):
            return str(entry.get("exception_message") or "unknown").strip().splitlines()[0]
    return ""


@contextmanager
def _silence() -> Iterator[None]:
    """Great Expectations logs a traceback for what this module raises as a clear error."""
    logger = logging.getLogger("great_expectations")
    previous = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(previous)
