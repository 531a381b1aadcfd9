"""Promise: a stage shows what it works on, how it ended, and whether its output was in a cache."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from tasks.core.prefect import stage
from tasks.core.progress import Step, mark_cached, progress_listener, progress_step


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator as any other: what it returns has the names of its own arguments."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


@stage("add {first} and {second}", str)
@logged
def add(first: int, second: int = 2) -> int:
    return first + second


@stage("read {name}")
def read(name: str) -> str:
    mark_cached()
    return name


def steps_of(call: Callable[[], Any]) -> list[Step]:
    steps: list[Step] = []
    with progress_listener(steps.append):
        call()
    return [progress_step for progress_step in steps[1::2] if progress_step.seconds is not None]


@pytest.mark.parametrize(
    "call", [lambda: add(1), lambda: add(1, 2), lambda: add(1, second=2), lambda: add(second=2, first=1)]
)
def test_the_title_names_arguments_however_they_are_passed(call):
    """By position, by name or by default, and of a decorated function, whose code has other names."""
    (done,) = steps_of(call)
    assert (done.title, done.figure, done.cached) == ("add 1 and 2", "3", False)


def test_a_wrong_argument_is_python_s_own_error():
    with pytest.raises(TypeError, match="third"):
        add(1, third=3)


def test_an_output_from_a_cache_is_shown_as_such():
    """Of the innermost step alone, and of none when nothing runs."""
    mark_cached()

    def work() -> None:
        with progress_step("around"):
            read("a")

    steps: list[Step] = []
    with progress_listener(steps.append):
        work()
    assert {each.title: (each.cached, each.depth) for each in steps} == {"around": (False, 0), "read a": (True, 1)}
