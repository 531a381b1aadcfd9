"""Reads Parquet: values have the file's own types."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.core.duckdb import quote_identifier, scan_parquet
from tasks.core.untrusted import reading_untrusted
from tasks.data.reading.config import ColumnType, FileFormat
from tasks.data.reading.delimited import column_names
from tasks.data.reading.report import RejectedRow
from tasks.data.reading.scan import Cell, Scan
from tasks.data.reading.unpack import PlainFile

if TYPE_CHECKING:
    import duckdb

TYPES: dict[str, ColumnType] = {  # by DuckDB's types
    r"(TINY|SMALL|BIG)?INT|INTEGER|U(TINY|SMALL)INT|UINTEGER": "integer",
    r"FLOAT|DOUBLE|DECIMAL\(.*\)": "number",
    "BOOLEAN": "boolean",
    "DATE": "date",
    r"TIMESTAMP.*": "timestamp",
    r"STRUCT.*|MAP.*|.*\[\d*\]|JSON": "json",
}
WHOLE = "UBIGINT|U?HUGEINT"  # 64 bits may not hold them


@dataclass(frozen=True)
class ParquetScan(Scan):
    """A Parquet file."""

    def lines(self, ordinals: Collection[int], rejected: Sequence[RejectedRow]) -> dict[int, tuple[int, str]]:
        return {ordinal: (ordinal + 1, "") for ordinal in ordinals}


def open_parquet(db: duckdb.DuckDBPyConnection, file: PlainFile, form: FileFormat) -> ParquetScan:
    """A file with its columns. Raises: DataError when it can't be read."""
    import pyarrow.parquet as pq

    relation = scan_parquet(file.path)
    with reading_untrusted(f"{file.name} can't be read.", file.path, allowed="a whole Parquet file"):
        columns = [(name, kind) for name, kind, *_ in db.execute(f"DESCRIBE FROM {relation}").fetchall()]
        records = pq.read_metadata(file.path).num_rows
    column_names(file, [name for name, _ in columns])
    return ParquetScan(
        name=file.name,
        relation=relation,
        cells={name: _cell(name, kind) for name, kind in columns},
        records=records,
        format=form,
    )


def _cell(name: str, kind: str) -> Cell:
    column = quote_identifier(name)
    text = f"{column}::VARCHAR"
    if re.fullmatch(WHOLE, kind):
        return Cell(text, candidates=("integer",))
    type_: ColumnType = next((type_ for pattern, type_ in TYPES.items() if re.fullmatch(pattern, kind)), "text")
    if type_ == "text":
        return Cell(text, type="text")
    if type_ == "timestamp":
        is_finer = f"epoch_ns({column}) % 1000 <> 0" if kind == "TIMESTAMP_NS" else ""  # than microseconds
        return Cell(text, native=f"{column}::TIMESTAMPTZ", bad=is_finer, type=type_)
    if kind in ("FLOAT", "DOUBLE"):
        finite = f"CASE WHEN isfinite({column}) THEN {column} END"
        return Cell(text, native=finite, bad=f"isinf({column})", nan=f"isnan({column})", type=type_)
    return Cell(text, native=column, type=type_)
