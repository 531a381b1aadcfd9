"""How a room's plain functions become Prefect tasks: cached by their inputs and our code, and told as a step."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.context import FlowRunContext, TagsContext, TaskRunContext
from prefect.events import emit_event
from pydantic_core import to_jsonable_python

from tasks.foundation.config import digest_of
from tasks.foundation.events import alert_of, event_of
from tasks.foundation.progress import step
from tasks.foundation.settings import ROOT

P = ParamSpec("P")
R = TypeVar("R")


def stage(
    title: str, figure: Callable[[Any], str] = lambda _: "", *, cache: bool = True
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a Prefect task. `title` may name parameters in braces; `figure` tells the result in a few words.

    With `cache`, a finished task is not run again for the same inputs and the same code, whatever happened to the run
    that it was part of. Without, the function is expected to find its own finished work. Outside a flow, as in
    `dvc repro`, a notebook or a test, the function is called as it is.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        made: Any = task(
            cast(Any, function),
            name=function.__name__.replace("_", " "),
            task_run_name=title,
            persist_result=cache,
            result_serializer="json",
            cache_key_fn=_cache_key if cache else None,
        )

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            named = {**dict(zip(function.__code__.co_varnames, args, strict=False)), **kwargs}
            with step(title.format(**named)) as told:
                if FlowRunContext.get() is None:
                    result = function(*args, **kwargs)
                else:
                    with TagsContext(current_tags=set()):  # for the run's tags each task asks the server for a slot
                        state = made(*args, return_state=True, **kwargs)
                    result = state.result()
                    told.cached = state.name == "Cached"
                told.figure = figure(result)
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


def announce(event: str, case: str, payload: dict[str, Any], **labels: str) -> None:
    """Tell Prefect's server of an event of a case, for the automations that wait for it."""
    _emit(event_of(event, case, payload, **labels))


def alert(case: str, cause: str, subject: str, body: str) -> None:
    """Tell people, at most once in a while for the same cause."""
    _emit(alert_of(case, cause, subject, body))


def _emit(event: dict[str, Any]) -> None:
    if FlowRunContext.get():
        emit_event(**event)


def _key(text: str) -> str:
    return text.lower().replace("_", "-")  # all that Prefect takes


def _cache_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    inputs = {name: to_jsonable_python(value) for name, value in parameters.items()}
    return digest_of([context.task.name, code_digest(), inputs])


@functools.cache
def code_digest() -> str:
    """SHA-256 over the rooms' source and the lock: a change of code is a change of inputs."""
    digest = hashlib.sha256()
    for path in [*sorted((ROOT / "tasks").rglob("*.py")), ROOT / "requirements.lock"]:
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
