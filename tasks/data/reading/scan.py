"""What a reader of one kind of file hands on: SQL over the file, and where its records stand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tasks.data.reading.config import ColumnDefinition, ColumnType, FileFormat
from tasks.data.reading.report import RejectedRow

TEXT_TYPES: tuple[ColumnType, ...] = ("integer", "number", "date", "timestamp")  # tried in this order, then text


@dataclass(frozen=True)
class Cell:
    """A column of a file as SQL over its relation."""

    text: str  # its values as text
    raw: str = ""  # of CSV: its fields with the blanks around them
    has_blanks: bool = False  # whether some may have
    literal: str = ""  # of JSON: its values as JSON text, where a text has quotes
    native: str = ""  # of Parquet: its values of the file's own type
    bad: str = ""  # of a native value: whether it does not fit
    nan: str = ""  # of a native value: whether it is NaN
    type: ColumnType | None = None  # known from the file; else the texts decide
    candidates: tuple[ColumnType, ...] = TEXT_TYPES

    def sql(self, type_: ColumnType | None) -> str:
        """Its values as text, to be typed as `type_`."""
        is_quoted = self.literal and type_ not in (None, "text", "date", "timestamp")
        return self.literal if is_quoted else self.text


@dataclass(frozen=True)
class Scan(ABC):
    """One file, opened."""

    name: str
    relation: str  # SQL after FROM
    cells: Mapping[str, Cell]
    records: int  # counted apart from DuckDB
    format: FileFormat
    fault: str = "NULL"  # SQL: why a record can't be read, else null

    @abstractmethod
    def lines(self, ordinals: Collection[int], rejected: Sequence[RejectedRow]) -> dict[int, tuple[int, str]]:
        """Line and text of records by their place among those that were read, from 0."""


def of_type(type_: ColumnType) -> ColumnDefinition:
    """A column of a type."""
    return ColumnDefinition.model_validate({"type": type_})
