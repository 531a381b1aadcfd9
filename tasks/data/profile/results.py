"""What a profile knows of a table and of each of its columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from tasks.core.config import Result

Type = Literal["text", "integer", "number", "boolean", "timestamp", "date", "json"]


class Reading(Result):
    """How the values of a text column read as another type."""

    type: Type
    format: str = ""  # of dates and timestamps; empty: ISO
    words: Mapping[str, int] = Field({})  # values that stand for a missing one, with their number of rows
    rejected: Mapping[str, int] = Field({})  # other values that are not of the type


class ColumnProfile(Result):
    """One column of a table."""

    name: str
    type: Type  # as read
    reading: Reading | None = None  # what its text would rather be read as
    missing: int = 0  # rows without a value
    distinct: int = 0  # exact up to MAX_LISTED_VALUES and for possible keys, else within some per cent
    unique: bool = False  # no value twice, and none missing
    least: Any = None
    most: Any = None
    mean: float | None = None
    deviation: float | None = None  # standard deviation
    counts: Mapping[str, int] = Field({})  # values with their numbers of rows, of columns with few
    length: float = 0.0  # of texts: characters, on average
    longest: int = 0
    words: float = 0.0  # of texts: words, on average
    padded: int = 0  # texts with blanks around them
    fractions: bool = False  # of numbers: some are not whole
    ascending: bool = False  # numbered from row to row: 0, 1, 2 or 1, 2, 3
    bins: tuple[int, ...] = ()  # histogram of a sample
    examples: tuple[str, ...] = ()
    personal: tuple[str, ...] = ()  # kinds of personal data
    alone: float | None = None  # how well it alone tells the target: AUC or r2
    is_leak: bool = False  # better than an honest column can be

    @property
    def read_type(self) -> Type:
        """The type that it should be read as."""
        return self.reading.type if self.reading else self.type

    @property
    def empty(self) -> int:
        """Rows without a value, those with a word that stands for one included."""
        return self.missing + (sum(self.reading.words.values()) if self.reading else 0)

    @property
    def is_number(self) -> bool:
        return self.read_type in ("integer", "number", "boolean")


class TableProfile(Result):
    """A table, as one pass over all of its rows sees it."""

    name: str  # of the file
    rows: int
    columns: tuple[ColumnProfile, ...]
    duplicates: int  # rows that repeat another one
    target: str = ""
    metric: Literal["", "auc", "r2"] = ""  # of the columns' `alone`
    parts: tuple[str, ...] = ()  # number columns whose weighted sum is the target
    notes: tuple[str, ...] = ()  # what reading the file changed or left out
    sampled: int = 0  # rows behind histograms, examples and `alone`
    seconds: float = 0.0

    def column(self, name: str) -> ColumnProfile:
        return next(column for column in self.columns if column.name == name)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)
