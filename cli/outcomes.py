"""`driftline outcomes`: brings what turned out to be true of a table without time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from flows.case import TabularCase, load_case
from tasks.core.console import console
from tasks.core.errors import CaseError
from tasks.core.settings import settings

SHOWN = 3


def outcomes(name: str, file: Path) -> None:
    """Store the outcomes of a file, and print how many of them name a row that the champion has scored.

    Raises: CaseError for a case whose outcomes come with its source, or whose rows have no lasting name; DataError.
    """
    from tasks.monitor.tabular.outcome_files import OutcomeFile, store_outcomes

    config = settings()
    case = load_case(name, config.cases)
    if not isinstance(case, TabularCase) or case.has_time:
        raise CaseError(
            f"The outcomes of {name} arrive with its data.",
            where=str(case.folder / "case.yaml"),
            found="a source with time" if isinstance(case, TabularCase) else "a language case",
            allowed="a table without time",
            todo=f"Deliver them in the source, then: driftline monitor {name}",
        )
    spec = case.monitor_spec
    if spec.rows_are_numbered:
        raise CaseError(
            f"No outcome can be joined in {name}: its rows are named by their position.",
            where=str(case.folder / "case.yaml"),
            found="row_number() OVER () in the source's SQL",
            allowed="a key column, or a name made of the row's content, as driftline new writes it",
            todo="Name the rows so, and run the case again; or send each outcome as feedback on its request.",
        )
    source = next(iter(case.data.sources.values()))
    file_of_case = OutcomeFile(file, source, case.target.column)
    stored = store_outcomes(name, file_of_case, datetime.now(UTC), config.data / "predictions")
    matched = stored.values.index.isin(_scored_ids(case))
    console.print(
        f"{len(stored.values):,} outcomes of {file.name}: {int(matched.sum()):,} of rows that the champion has scored",
        markup=False,
    )
    if others := [str(key) for key in stored.values.index[~matched]]:
        more = ", ..." if len(others) > SHOWN else ""
        console.print(f"  {len(others):,} match no scored row: {', '.join(others[:SHOWN])}{more}", markup=False)
    for row in stored.rejected[:SHOWN]:
        console.print(f"  not read: {row.sentence()}", markup=False)
    console.print(f"Next: driftline monitor {name}")


def _scored_ids(case: TabularCase) -> set[str]:
    """The ids of all rows that the champion has scored."""
    from services.gateway.log_export import export_scored_rows
    from tasks.core.errors import NoDataYet
    from tasks.core.files import scratch_folder
    from tasks.monitor.signal import Window
    from tasks.monitor.tabular.served import read_served
    from tasks.release.task import find_champion

    config, now = settings(), datetime.now(UTC)
    champion = find_champion(case.name, config.tracking, config.state)
    if champion is None:
        return set()
    with scratch_folder(config.state / "monitor") as folder:
        logged = None
        if config.gateway_log != "none":
            logged = export_scored_rows(champion, champion.as_of, now, Path(folder) / "requests.parquet", config)
        try:
            window = Window.of(champion, champion.as_of, now)
            return {*read_served(champion, case.monitor_spec, window, logged, config.places).rows["example_id"]}
        except NoDataYet:
            return set()
