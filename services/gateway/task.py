"""Prefect tasks of the gateway."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tasks.core.prefect import stage
from tasks.core.settings import Settings
from tasks.monitor.results import LoggedQuestions, ScoredRows
from tasks.release.results import Release


@stage("collect the log of {case}")
def collect_log(case: str, as_of: datetime, out: Path, settings: Settings) -> Path:
    """Export the request log of a case with its feedback, as a file that can be ingested."""
    from services.gateway.log_export import export_log

    return export_log(case, as_of, out, settings)


@stage("collect the requests of {release.case}")
def collect_scored_rows(
    release: Release, start: datetime, as_of: datetime, out: Path, settings: Settings
) -> ScoredRows | None:
    """Export the rows that a release scored through the gateway; None when the log stores no values."""
    from services.gateway.log_export import export_scored_rows

    if settings.gateway_log == "none":
        return None
    return export_scored_rows(release, start, as_of, out, settings)


@stage("collect the questions to {release.case}")
def collect_questions(
    release: Release, start: datetime, as_of: datetime, out: Path, settings: Settings
) -> LoggedQuestions:
    """Export what a release with a knowledge base was asked through the gateway."""
    from services.gateway.log_export import export_questions

    return export_questions(release, start, as_of, out, settings)


@stage("trace a sample of the calls", lambda count: f"{count} new")
def trace_calls(case: str, as_of: datetime, settings: Settings) -> int:
    """Write a sample of the case's calls as traces into its MLflow experiment."""
    from services.gateway.traces import write_traces

    return write_traces(case, as_of, settings)
