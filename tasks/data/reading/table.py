"""SQL of the table that several files make: texts, present texts, values, and the fault of each record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tasks.data.reading.cells import Typing
from tasks.data.reading.config import ColumnDefinition, ColumnType
from tasks.data.reading.scan import Cell, Scan

WHOLE_RECORD = -1
GROUP = 100  # columns of one query that computes much of each: DuckDB plans by the square of their number


@dataclass(frozen=True)
class Table:
    """The files of a source as one relation, columns by number: t0 (text), x0 (if not missing), v0 (value)."""

    scans: Sequence[Scan]
    columns: Mapping[str, ColumnDefinition | None]  # None: not typed yet
    typing: Typing

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each column."""
        return {name: number for number, name in enumerate(self.columns)}

    def cells(self, name: str) -> list[Cell]:
        """A column in the files that have it."""
        return [scan.cells[name] for scan in self.scans if name in scan.cells]

    def is_native(self, name: str) -> bool:
        """Whether its values come from the file as they are."""
        column = self.columns[name]
        return column is not None and all(cell.native and cell.type == column.type for cell in self.cells(name))

    def limited(self, rows: int) -> Table:
        """The first rows of each file."""
        first = [replace(scan, relation=f"(SELECT * FROM {scan.relation} LIMIT {rows})") for scan in self.scans]
        return replace(self, scans=first)

    def only(self, names: Sequence[str]) -> Table:
        """Some of the columns."""
        return replace(self, columns={name: self.columns[name] for name in names})

    def texts(self) -> str:
        """SQL of the texts as they stand in the files."""
        selects = []
        for place, scan in enumerate(self.scans):
            parts = [f"{place} AS f", f"{scan.fault} AS b"]
            for number, (name, column) in enumerate(self.columns.items()):
                parts += self._cell(number, name, scan.cells.get(name), column.type if column else None)
            selects.append(f"SELECT {', '.join(parts)} FROM {scan.relation}")
        return f"({' UNION ALL BY NAME '.join(selects)})"

    def present(self) -> str:
        """SQL of the texts, null where they stand for a missing value."""
        columns = [
            f"{self.typing.present(f't{number}', column.type if column else None)} AS x{number}"
            for number, (name, column) in enumerate(self.columns.items())
            if not self.is_native(name)
        ]
        return f"(SELECT {', '.join(['*', *columns])} FROM {self.texts()})"

    def values(self) -> str:
        """SQL of the values with the fault of each record, null where there is none."""
        values, faults = [], []
        for number, (name, column) in enumerate(self.columns.items()):
            if column is None:
                raise ValueError(f"column {name} has no type")
            if not self.is_native(name):
                values.append(f"{self.typing.value(f'x{number}', column)} AS v{number}")
                if column.type != "text":
                    faults.append((number, f"x{number}", f"x{number} IS NOT NULL AND v{number} IS NULL"))
            elif any(cell.bad for cell in self.cells(name)):
                faults.append((number, f"t{number}", f"t{number} IS NOT NULL"))
        names = ", ".join(f"v{number}" for number in range(len(self.columns)))
        typed = f"(SELECT {', '.join(['*', *values])} FROM {self.present()})"
        placed = f"(SELECT *, {_place(faults)} AS place FROM {typed})"
        return f"SELECT {names}, f, {_first_fault(faults)} AS fault FROM {placed}"

    def _cell(self, number: int, name: str, cell: Cell | None, type_: ColumnType | None) -> list[str]:
        if cell is None:
            return []
        if not self.is_native(name):
            blanks = [f"{cell.raw} AS r{number}"] if cell.has_blanks else []
            return [f"{self._field(cell, type_)} AS t{number}", *blanks]
        marks = [f"CASE WHEN {cell.bad} THEN {cell.text} END AS t{number}"] if cell.bad else []
        marks += [f"{cell.nan} AS n{number}"] if cell.nan else []
        return [f"{cell.native} AS v{number}", *marks]

    def _field(self, cell: Cell, type_: ColumnType | None) -> str:
        """An empty field of CSV is null; where it does not stand for a missing value, it is an empty text."""
        text = cell.sql(type_)
        return f"coalesce({text}, '')" if cell.raw and "" not in self.typing.missing else text


def _place(faults: Sequence[tuple[int, str, str]]) -> str:
    """SQL of which of the faults comes first; a CASE of 1,500 branches would take minutes to plan."""
    return f"list_position([{', '.join(condition for _, _, condition in faults)}], true)" if faults else "NULL"


def _first_fault(faults: Sequence[tuple[int, str, str]]) -> str:
    whole = f"WHEN b IS NOT NULL THEN {_fault(str(WHOLE_RECORD), 'b')}"
    if not faults:
        return f"CASE {whole} END"
    numbers = f"[{', '.join(str(number) for number, _, _ in faults)}][place]"
    texts = f"[{', '.join(f'{text}::VARCHAR' for _, text, _ in faults)}][place]"
    return f"CASE {whole} WHEN place > 0 THEN {_fault(numbers, texts)} END"


def _fault(number: str, text: str) -> str:
    return f"{{'number': {number}, 'text': {text}}}"
