"""Turn plain stage functions into Prefect tasks that report progress; and artifacts and events of a run."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from tasks.core.compat import in_flow_run, without_run_tags
from tasks.core.events import alert_event, case_event
from tasks.core.progress import progress_step

P = ParamSpec("P")
R = TypeVar("R")


def stage(title: str, figure: Callable[[Any], str] = lambda _: "") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a Prefect task. `title` may name parameters in braces; `figure` summarises the result.

    Prefect persists no result. A long stage caches its own output in a folder named by `code_digest.cache_key`: so
    there is one cache, and it also works outside a flow, as in `dvc repro`, a notebook or a test.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        run_in_flow: Any = task(
            cast(Any, function),
            name=function.__name__.replace("_", " "),
            task_run_name=title,
            persist_result=False,
            cache_policy=NO_CACHE,
        )

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            result: R
            with progress_step(title.format(**bound.arguments)) as current:
                if in_flow_run():
                    with without_run_tags():
                        result = run_in_flow(*args, **kwargs)
                else:
                    result = function(*args, **kwargs)
                current.figure = figure(result)
            return result

        return call

    return decorate


def show_table(key: str, rows: list[dict[str, Any]], description: str) -> None:
    """Show a table on the run's page in the Prefect UI."""
    if in_flow_run():
        create_table_artifact(rows, key=_key(key), description=description)


def show_text(key: str, markdown: str, description: str) -> None:
    """Show Markdown on the run's page in the Prefect UI."""
    if in_flow_run():
        create_markdown_artifact(markdown, key=_key(key), description=description)


def show_link(key: str, path: Path, description: str) -> None:
    """Show a link to a report on the run's page in the Prefect UI."""
    if in_flow_run():
        create_link_artifact(path.as_uri(), description, key=_key(key), description=description)


def emit_case_event(event: str, case: str, payload: dict[str, Any], **labels: str) -> None:
    """Emit an event of a case, for Prefect's automations."""
    _emit(case_event(event, case, payload, **labels))


def emit_alert(case: str, cause: str, subject: str, body: str) -> None:
    """Send an alert, rate-limited for each cause."""
    _emit(alert_event(case, cause, subject, body))


def _emit(event: dict[str, Any]) -> None:
    if in_flow_run():
        emit_event(**event)


def _key(text: str) -> str:
    return text.lower().replace("_", "-")  # Prefect allows no other characters
