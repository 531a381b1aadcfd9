"""Sources to a validated snapshot."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import flow

from flows.case import LanguageCase
from flows.run_context import Request, RunContext, run_context, run_name
from services.gateway.task import collect_log
from tasks.data.results import Snapshot
from tasks.data.snapshots import is_sound
from tasks.data.task import curate_pairs, ingest_source, open_model, take_snapshot, validate_source


@flow(name="prepare", flow_run_name=run_name)
def prepare(request: Request) -> Snapshot:
    """Read the case's sources, validate what is new, quarantine bad rows, and store the snapshot in DVC."""
    with run_context(request) as run:
        return prepare_steps(run)


def prepare_steps(run: RunContext) -> Snapshot:
    case, here = run.case, run.settings
    sources, raw = case.data.sources, here.data / "raw" / case.name
    logs = {
        name: collect_log(source.log, run.as_of, raw / f"{name}.parquet", here)
        for name, source in sources.items()
        if source.log
    }
    landings = {name: ingest_source(name, source, case.folder, raw, logs.get(name)) for name, source in sources.items()}
    checked = [validate_source(name, case.name, sources, landings, run.as_of, here.state) for name in sources]
    if isinstance(case, LanguageCase):
        base = open_model(case.model, case.folder, here.state)
        checked.append(curate_pairs(case.name, case.pairs, case.talk, base, sources, checked, run.as_of, here.state))
    snapshot = take_snapshot(case.name, run.as_of, checked, here.state, here.remote)
    if is_sound(snapshot):
        return snapshot
    return take_snapshot(case.name, run.as_of, checked, here.state, here.remote, datetime.now(UTC).isoformat())
