"""Prefect tasks of the gateway room."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tasks.core.prefect import stage
from tasks.core.settings import Settings


@stage("collect the log of {case}")
def collect_log(case: str, as_of: datetime, out: Path, settings: Settings) -> Path:
    """Write what the gateway had answered for a case, and what people had said of it, as a file that can be landed."""
    from services.gateway.log_export import export_log

    return export_log(case, as_of, out, settings)


@stage("trace a sample of the calls", lambda count: f"{count} new")
def trace_calls(case: str, as_of: datetime, settings: Settings) -> int:
    """Show a share of the case's calls in its MLflow experiment."""
    from services.gateway.traces import trace

    return trace(case, as_of, settings)
