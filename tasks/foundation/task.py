"""How a room's plain functions become Prefect tasks: cached by their inputs and our code, and told as a step."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import task
from prefect.context import TaskRunContext
from pydantic_core import to_jsonable_python

from tasks.foundation.config import digest_of
from tasks.foundation.progress import step
from tasks.foundation.settings import ROOT

P = ParamSpec("P")
R = TypeVar("R")


def stage(
    title: str, figure: Callable[[Any], str] = lambda _: "", *, cache: bool = True
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a Prefect task. `title` may name parameters in braces; `figure` tells the result in a few words.

    With `cache`, a finished task is not run again for the same inputs and the same code, whatever happened to the run
    that it was part of. Without, the function is expected to find its own finished work.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        made = task(
            function,
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
                state = made(*args, return_state=True, **kwargs)  # type: ignore[call-overload]
                result = state.result()
                told.cached = state.name == "Cached"
                told.figure = figure(result)
            return result

        return call

    return decorate


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
