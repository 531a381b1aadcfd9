"""What each column is to a model: a number, a category, a date, free text, or nothing that can be learned from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, TypeAlias

from tasks.features.results import Column
from tasks.train.tabular.encoders import date_parts

if TYPE_CHECKING:
    import pandas as pd

Role: TypeAlias = Literal["number", "category", "many_categories", "date", "text", "unique"]

NATIVE_CATEGORIES = 255  # HistGradientBoosting takes no more in a column
MOST_CATEGORIES = 20_000  # of a column: a model file lists them
TEXT_WORDS = 3  # mean words of a value, from which on it is text and not a name
DATE_SHARE = 0.99  # of the values, which must be ISO dates
ALIKE = 0.95  # correlation
HOURS = 11  # characters from which on an ISO date has a time of day


@dataclass(frozen=True)
class ColumnRole:
    """A column's role, and what it was decided by."""

    name: str
    role: Role
    distinct: int = 0
    has_hours: bool = False  # of a date
    is_moment: bool = False  # of a date: it goes with event_timestamp, so that later rows have later ones
    words: float = 0.0  # mean of a value


def column_roles(
    examples: pd.DataFrame, columns: Sequence[Column], text: Collection[str] = ()
) -> tuple[ColumnRole, ...]:
    """The role of each feature; columns named in `text` are free text."""
    return tuple(
        ColumnRole(column.name, "number")
        if column.kind == "number"
        else _text_role(examples, column.name, column.name in text)
        for column in columns
    )


def _text_role(examples: pd.DataFrame, name: str, is_text: bool) -> ColumnRole:
    known = examples[name].dropna().str.strip()
    unique = known.unique()
    words = float(known.str.count(r"\S+").mean()) if len(known) else 0.0
    dates = [value for value in unique if _is_date(value)]
    if is_text:
        role: Role = "text"
    elif len(unique) and len(dates) >= DATE_SHARE * len(unique):
        has_hours, is_moment = any(len(value) > HOURS for value in dates), _is_moment(known, examples)
        return ColumnRole(name, "date", len(unique), has_hours=has_hours, is_moment=is_moment)
    elif words >= TEXT_WORDS and len(unique) > min(NATIVE_CATEGORIES, len(known) / 2):
        role = "text"
    elif len(unique) > min(MOST_CATEGORIES, max(20, len(known) / 2)):
        role = "unique"
    else:
        role = "category" if len(unique) <= NATIVE_CATEGORIES else "many_categories"
    return ColumnRole(name, role, len(unique), words=words)


def _is_moment(dates: pd.Series, examples: pd.DataFrame) -> bool:
    """Whether dates go with the moments of their rows; never in a table without time."""
    times = examples["event_timestamp"].loc[dates.index]
    if times.nunique() < 2 or dates.nunique() < 2:
        return False
    days = dates.map({text: date_parts(text)[-1] for text in dates.unique()})
    return float(days.corr(times.astype("int64").astype("float64"))) > ALIKE


def _is_date(value: str) -> bool:
    if len(value) < len("2026-01-01") or value[4] != "-":
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True
