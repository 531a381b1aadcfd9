"""How a room's plain functions become Prefect tasks, shown as steps; their outputs are cached by what they call."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext, TagsContext
from prefect.events import emit_event

from tasks.core.events import alert_event, case_event
from tasks.core.progress import progress_step

P = ParamSpec("P")
R = TypeVar("R")


def stage(title: str, figure: Callable[[Any], str] = lambda _: "") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a Prefect task. `title` may name parameters in braces; `figure` tells the result in a few words.

    Prefect keeps no result. A stage that takes long finds its own output again, in a folder named by
    `code_digest.cache_key`: so there is one cache, and it also works outside a flow, as in `dvc repro`, a notebook or
    a test, where the function is called as it is.
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
            with progress_step(title.format(**bound.arguments)) as current:
                if FlowRunContext.get() is None:
                    result = function(*args, **kwargs)
                else:
                    with TagsContext(current_tags=set()):  # for the run's tags each task asks the server for a slot
                        result = run_in_flow(*args, **kwargs)
                current.figure = figure(result)
            return result

        return call

    return decorate


def show_table(key: str, rows: list[dict[str, Any]], description: str) -> None:
    """Put a table on the run's page in the Prefect UI."""
    if FlowRunContext.get():
        create_table_artifact(rows, key=_key(key), description=description)


def show_text(key: str, markdown: str, description: str) -> None:
    """Put Markdown on the run's page in the Prefect UI."""
    if FlowRunContext.get():
        create_markdown_artifact(markdown, key=_key(key), description=description)


def show_link(key: str, path: Path, description: str) -> None:
    """Put a link to a report on the run's page in the Prefect UI."""
    if FlowRunContext.get():
        create_link_artifact(path.as_uri(), description, key=_key(key), description=description)


def emit_case_event(event: str, case: str, payload: dict[str, Any], **labels: str) -> None:
    """Tell Prefect's server of an event of a case, for the automations that wait for it."""
    _emit(case_event(event, case, payload, **labels))


def emit_alert(case: str, cause: str, subject: str, body: str) -> None:
    """Tell people, at most once in a while for the same cause."""
    _emit(alert_event(case, cause, subject, body))


def _emit(event: dict[str, Any]) -> None:
    if FlowRunContext.get():
        emit_event(**event)


def _key(text: str) -> str:
    return text.lower().replace("_", "-")  # all that Prefect takes
