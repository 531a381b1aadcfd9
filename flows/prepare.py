"""Sources to a validated snapshot."""

from __future__ import annotations

from prefect import flow

from flows.run_context import Request, run_context, run_name
from flows.steps import prepare_snapshot
from tasks.data.results import Snapshot


@flow(name="prepare", flow_run_name=run_name)
def prepare(request: Request) -> Snapshot:
    """Read the case's sources, validate new data, quarantine bad rows, and store the snapshot in DVC."""
    with run_context(request) as run:
        return prepare_snapshot(run)
