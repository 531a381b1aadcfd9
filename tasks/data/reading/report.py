"""What reading a source's files found: rows, rejected rows, types, and what was taken for missing."""

from __future__ import annotations

from collections import Counter

from pydantic import Field

from tasks.core.config import Result
from tasks.data.reading.config import ColumnDefinition, FileFormat

MAX_TEXT = 1_000  # characters of a rejected record that are stored


class RejectedRow(Result):
    """A record that was not read, and why."""

    file: str
    line: int  # in the file, from 1; the number of the record in JSON arrays and Parquet
    column: str  # empty: the whole record
    text: str
    reason: str

    def sentence(self) -> str:
        column = f", column {self.column}" if self.column else ""
        return f"{self.file} line {self.line}{column}: {self.reason}: {self.text[:80]!r}"


class ReadReport(Result):
    """The reconciliation of files with the table `raw`: records = landed + rejected."""

    records: int
    landed: int
    rejected: int  # all of them stand in the table `rejected`: file, line, column, text, reason
    first: tuple[RejectedRow, ...] = ()  # the first of them
    columns: dict[str, ColumnDefinition]  # in the order of the file
    missing: dict[str, dict[str, int]]  # cells without a value by column and word; "" is the empty field
    trimmed: dict[str, int]  # cells with blanks around their text, by column
    ignored: tuple[str, ...] = ()  # columns of the files that the source does not declare
    format: FileFormat = Field(default_factory=lambda: FileFormat.model_validate({}))  # as read: the delimiter in use

    def notes(self) -> list[str]:
        """What a person should know of the reading, one clause each."""
        notes = []
        if self.rejected:
            notes.append(f"{self.rejected:,} of {self.records:,} records rejected, {self.first[0].sentence()}")
        if self.missing:
            words: Counter[str] = Counter()
            for counts in self.missing.values():
                words.update(counts)
            listed = ", ".join(f"{word or 'empty'} {count:,}" for word, count in sorted(words.items()))
            notes.append(f"missing values: {listed}")
        if self.ignored:
            notes.append(f"columns not declared: {', '.join(self.ignored[:12])}")
        return notes
