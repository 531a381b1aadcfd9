"""The options of `driftline new` for a table, and what is wrong with them, all at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tasks.core.errors import InputError
from tasks.data.profile.results import ColumnProfile, TableProfile
from tasks.statistics.metric_catalog import metrics_of
from tasks.train.classes import MAX_CLASSES

Task = Literal["classification", "regression"]
_AMOUNT = re.compile(
    r"(^|[_ ])(count|counts|number|num|n|rating|ratings|stars|score|points|age|days|hours|minutes|years|price|amount"
    r"|qty|quantity|sales|quality|cnt)($|[_ ])",
    re.IGNORECASE,
)
MAX_CODES = 12  # different whole numbers that may be codes of classes
TASKS: tuple[Task, ...] = ("classification", "regression")


@dataclass(frozen=True)
class TableOptions:
    """What the user says about a table; None and empty: `new` decides."""

    target: str | None = None
    task: str | None = None  # a Task, once checked
    positive: str | None = None
    key: tuple[str, ...] = ()
    time: str | None = None
    drop: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    metric: str | None = None


def check_options(profile: TableProfile, options: TableOptions) -> None:
    """Raises: InputError that lists every wrong option, with what is right."""
    if problems := [*_unknown_columns(profile, options)] or [*_wrong_uses(profile, options)]:
        raise InputError(
            "Options don't fit the file." if len(problems) > 1 else "An option does not fit the file.",
            where=profile.name,
            found="".join(f"\n    {problem}" for problem in problems),
            allowed=f"columns {', '.join(profile.names[:60])}{', ...' if len(profile.names) > 60 else ''}",
            todo="Correct these and start again; nothing was written.",
        )


def _unknown_columns(profile: TableProfile, options: TableOptions) -> Iterator[str]:
    named = [("--target", [options.target]), ("--key", options.key), ("--time", [options.time])]
    for option, names in [*named, ("--drop", options.drop), ("--text", options.text)]:
        for name in names:
            if name is not None and name not in profile.names:
                near = difflib.get_close_matches(name, profile.names, 1, 0.5)
                yield f"{option} {name}: no such column" + (f"; did you mean {near[0]}?" if near else "")
    if options.task is not None and options.task not in TASKS:
        yield f"--task {options.task}: not a task; allowed: {', '.join(TASKS)}"


def _wrong_uses(profile: TableProfile, options: TableOptions) -> Iterator[str]:
    target = profile.column(str(options.target))
    task = chosen_task(target, options)
    yield from _wrong_target(target, options, task)
    yield from _wrong_key(profile, options)
    if options.time and (problem := _wrong_time(profile, profile.column(options.time))):
        yield f"--time {options.time}: {problem}"
    uses = [("--target", options.target), *(("--key", name) for name in options.key), ("--time", options.time)]
    for option, name in uses:
        if name in options.drop:
            yield f"--drop {name}: it is {option}, too; a key and a time column are no features as it is"
    if options.target in options.key or options.target == options.time:
        yield f"--target {options.target}: it is key or time, too; what is predicted is neither"
    for name in options.text:
        if profile.column(name).read_type != "text" or name in (options.target, options.time, *options.key):
            yield f"--text {name}: {profile.column(name).read_type}; a column of text that is neither target nor key is"
    if options.metric and options.metric not in metrics_of(task):
        near = difflib.get_close_matches(options.metric, metrics_of(task), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        yield f"--metric {options.metric}: not one of a {task}: {', '.join(metrics_of(task))}{hint}"


def _wrong_target(target: ColumnProfile, options: TableOptions, task: Task) -> Iterator[str]:
    known = f"{target.distinct:,} distinct values"
    if target.read_type in ("timestamp", "date", "json"):
        yield f"--target {target.name}: can't be a target: {target.read_type}; numbers or classes are"
    elif target.distinct == 0:
        yield f"--target {target.name}: can't be a target: no row has a value"
    elif target.distinct == 1:
        value = next(iter(target.counts), "one value")
        hint = "; if empty means that nothing happened, fill it in the file first" if target.empty else ""
        yield f"--target {target.name}: can't be a target: {value} in every row that has one{hint}"
    elif task == "regression" and not target.is_number:
        yield f"--task regression: {target.name} holds {target.read_type}, {known}; a regression takes numbers"
    elif task == "classification" and target.distinct > MAX_CLASSES:
        hint = "" if options.task is None else "; --task regression" if target.is_number else ""
        found = f"{target.read_type} with {known}"
        yield f"--target {target.name}: can't be a target: {found}; at most {MAX_CLASSES} classes{hint}"
    elif task == "classification" and target.read_type == "number" and target.fractions:
        yield f"--task classification: {target.name} holds fractions; classes are texts or whole numbers"
    if options.positive is not None:
        if task == "regression":
            yield f"--positive {options.positive}: names a class, and a regression has none"
        elif target.distinct != 2:
            yield f"--positive {options.positive}: {target.name} has {target.distinct} classes; it is for two"
        elif options.positive not in class_names(target):
            yield f"--positive {options.positive}: {target.name} holds {' and '.join(class_names(target))}"


def class_names(target: ColumnProfile) -> list[str]:
    """The classes as the case names them, the rarest last."""
    if target.type == "boolean":
        return [{"true": "1", "false": "0"}[value] for value in target.counts]
    return [f"{float(value):.0f}" if target.is_number else value for value in target.counts]


def _wrong_key(profile: TableProfile, options: TableOptions) -> Iterator[str]:
    for name in options.key:
        column = profile.column(name)
        if column.missing:
            yield f"--key {name}: empty in {column.missing:,} rows; each row of a key has a value"
        elif len(options.key) == 1 and not column.unique:
            near = [c.name for c in profile.columns if c.unique and not c.fractions]
            hint = f"unique are: {', '.join(near[:5])}" if near else "without --key rows are named by their content"
            yield f"--key {name}: values repeat, {column.distinct:,} in {profile.rows:,} rows; {hint}"


def _wrong_time(profile: TableProfile, time: ColumnProfile) -> str:
    if time.read_type not in ("timestamp", "date"):
        others = [c.name for c in profile.columns if c.read_type in ("timestamp", "date")]
        example = f", such as {time.examples[0]}" if time.examples else ""
        hint = (
            f"columns with a time: {', '.join(others)}" if others else "2024-12-31, 31.12.2024 14:30 and such are read"
        )
        return f"no valid time in each row: {time.read_type}{example}; {hint}"
    return f"no valid time in each row: {time.empty:,} rows without one" if time.empty else ""


def chosen_task(target: ColumnProfile, options: TableOptions) -> Task:
    """The task that the user names, else the guessed one."""
    return next((task for task in TASKS if task == options.task), guess_task(target)[0])


def guess_task(target: ColumnProfile) -> tuple[Task, str]:
    """Classification or regression, and the reason for it."""
    if target.read_type in ("text", "boolean"):
        return "classification", f"{target.distinct:,} {'words' if target.read_type == 'text' else 'values'}"
    if target.fractions:
        return "regression", "numbers with fractions"
    if target.distinct <= 3:
        return "classification", f"{target.distinct} whole numbers"
    if target.distinct > MAX_CODES:
        return "regression", f"{target.distinct:,} different numbers"
    sizes = [n for _, n in sorted(target.counts.items(), key=lambda item: float(item[0]))]
    top = sizes.index(max(sizes))
    one_peak = sizes[: top + 1] == sorted(sizes[: top + 1]) and sizes[top:] == sorted(sizes[top:], reverse=True)
    if one_peak and max(sizes) >= 4 * min(sizes):
        return "regression", f"{target.distinct} whole numbers that rise and fall as counts or marks do"
    if _AMOUNT.search(target.name):
        return "regression", f"{target.distinct} whole numbers, counts or marks by their name"
    return "classification", f"{target.distinct} whole numbers, as codes of classes are"
