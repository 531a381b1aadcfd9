"""What a row of a request may hold, as the training data had it: gaps, booleans, texts, the source's other columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.core.errors import DataError
from tasks.data.results import Snapshot
from tasks.train.results import Candidate

if TYPE_CHECKING:
    import pyarrow as pa

    from tasks.train.tabular.model_file import Model

MIN_TEXT = 1000  # characters that every text column takes


def request_schema(candidate: Candidate, model: Model, snapshot: Snapshot | None) -> dict[str, Any]:
    """The sealed description of a row.

    columns: the features, in the model's order; nullable: training had gaps in it, or the pipeline takes one;
    boolean: training had only 0 and 1; max_length: of a text, in characters.
    entities: the join keys with their kind. ignored: other columns of the sources, which a row may hold.
    """
    import pyarrow.parquet as pq

    names = [column.name for column in candidate.columns]
    keys = sorted({key for column in candidate.columns for key in column.entities})
    frame = pq.ParquetFile(candidate.frame)
    table = frame.read(columns=[*names, *(key for key in keys if key not in names)])
    gaps = _takes_gaps(candidate, model, table)
    columns = [
        {
            **column.model_dump(mode="json"),
            "nullable": column.name in gaps,
            **({"max_length": _max_length(values)} if column.kind == "text" else {"boolean": _is_boolean(values)}),
        }
        for column, values in ((column, table[column.name]) for column in candidate.columns)
    ]
    others = {*frame.schema_arrow.names, *(field.name for field in source_fields(snapshot))}
    return {
        "columns": columns,
        "entities": {key: _kind(table.schema.field(key).type) for key in keys},
        "ignored": sorted(others - {*names, *keys, "example_id"}),
    }


def _takes_gaps(candidate: Candidate, model: Model, table: pa.Table) -> set[str]:
    """The columns that may be missing."""
    names = [column.name for column in candidate.columns]
    row = {name: [table[name][0].as_py()] for name in names}
    if _scores(model, {name: [None] for name in names}):  # else each by itself, which takes long for many columns
        return set(names)
    return {
        column.name
        for column in candidate.columns
        if column.origin != "request" or _has_missing(table[column.name]) or _scores(model, row | {column.name: [None]})
    }


def _scores(model: Model, row: dict[str, list[Any]]) -> bool:
    from tasks.train.tabular.model_file import predict

    try:
        predict(model, row)
    except DataError:
        return False
    return True


def _has_missing(values: pa.ChunkedArray) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    return values.null_count > 0 or (pa.types.is_floating(values.type) and bool(pc.any(pc.is_nan(values)).as_py()))


def _is_boolean(values: pa.ChunkedArray) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    return bool(pc.all(pc.is_in(values.cast(pa.float64()), pa.array([0.0, 1.0, float("nan"), None]))).as_py())


def _max_length(values: pa.ChunkedArray) -> int:
    """The longest text that a request may hold: twice that of training."""
    import pyarrow.compute as pc

    return max(MIN_TEXT, 2 * (pc.max(pc.utf8_length(values)).as_py() or 0))


def _kind(dtype: pa.DataType) -> str:
    import pyarrow as pa

    return "integer" if pa.types.is_integer(dtype) else "number" if pa.types.is_floating(dtype) else "text"


def source_fields(snapshot: Snapshot | None) -> list[pa.Field]:
    """The columns of the snapshot's tables."""
    import pyarrow.parquet as pq

    if snapshot is None:
        return []
    files = [next((snapshot.path / table).glob("*.parquet"), None) for table in snapshot.rows]
    return [field for file in files if file for field in pq.read_schema(file)]
