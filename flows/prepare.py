"""Sources to a validated snapshot."""

from __future__ import annotations

from prefect import flow

from flows.entry import Opened, Request, opened, run_name
from tasks.data.results import Snapshot
from tasks.data.task import check_source, land_source, take_snapshot


@flow(name="prepare", flow_run_name=run_name)
def prepare(request: Request) -> Snapshot:
    """Read the case's sources, validate what is new, quarantine bad rows, and store the snapshot in DVC."""
    with opened(request) as run:
        return prepare_steps(run)


def prepare_steps(run: Opened) -> Snapshot:
    case, here = run.case, run.settings
    sources = case.data.sources
    landings = {
        name: land_source(name, source, case.folder, here.data / "raw" / case.name) for name, source in sources.items()
    }
    checked = [check_source(name, case.name, sources, landings, run.as_of, here.state) for name in sources]
    return take_snapshot(case.name, run.as_of, checked, here.state, here.remote)
