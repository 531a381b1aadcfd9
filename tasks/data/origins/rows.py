"""Rows of a database as Parquet files with the types of their values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import DataError
from tasks.core.files import atomic_path, disk_full_as_unavailable, file_digest
from tasks.data.origins.results import FetchedFile

if TYPE_CHECKING:
    import pyarrow as pa

PLAIN = (type(None), bool, int, float, Decimal, str, bytes, datetime, date, time)
MOST_DIGITS = 38  # of a decimal that DuckDB reads


def write_rows(name: str, columns: Sequence[str], rows: Sequence[Any], cache: Path, version: str = "") -> FetchedFile:
    """Write some rows as a Parquet file, named by its content: a file of an earlier fetch is never overwritten.

    Raises: DataError when the values of a column have several types.
    """
    import pyarrow as pa

    values = zip(*rows, strict=True) if rows else [()] * len(columns)
    arrays = [_array(column, each) for column, each in zip(columns, values, strict=True)]
    if len(set(columns)) < len(columns):
        raise DataError(
            "A source's query gives two columns one name.",
            found=", ".join(columns),
            todo="Name each column of the query once: SELECT a.id, b.id AS other_id ...",
        )
    return _write(name, pa.table(dict(zip(columns, arrays, strict=True))), cache, version)


def unify_types(files: Sequence[FetchedFile], cache: Path) -> tuple[FetchedFile, ...]:
    """The files with one type a column: decimals of the widest form, and no column without a type beside one with.

    Raises: DataError when a column's types do not go together.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schemas = [pq.read_schema(file.path) for file in files]
    try:
        common = pa.unify_schemas(schemas, promote_options="permissive") if schemas else None
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise _mixed(str(error)) from error
    if common is None:
        return tuple(files)
    for index, field in enumerate(common):
        if pa.types.is_decimal(field.type) and field.type.precision > MOST_DIGITS:
            common = common.set(index, field.with_type(pa.string()))
    return tuple(
        file if schema == common else _write(file.name, _cast(file.path, common), cache, file.version)
        for file, schema in zip(files, schemas, strict=True)
    )


def _array(column: str, values: Sequence[Any]) -> pa.Array:
    import pyarrow as pa

    if not {type(value) for value in values} <= set(PLAIN) - {datetime, Decimal}:
        values = [_plain(value) for value in values]
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        kinds = sorted({type(value).__name__ for value in values if value is not None})
        raise _mixed(f"{column}: {', '.join(kinds)}; {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value
    if isinstance(value, Decimal):
        return None if value.is_nan() else value
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return bytes(value) if isinstance(value, memoryview | bytearray) else str(value)


def _cast(path: Path, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, partitioning=None).select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise _mixed(str(error)) from error


def _write(name: str, table: pa.Table, cache: Path, version: str) -> FetchedFile:
    import pyarrow.parquet as pq

    unnamed = cache / name.rpartition("#")[0] / "part.parquet"
    with disk_full_as_unavailable(unnamed), atomic_path(unnamed) as temporary:
        pq.write_table(table, temporary)
    digest, size = file_digest(unnamed), unnamed.stat().st_size
    path = unnamed.rename(unnamed.with_name(f"{digest[:16]}.parquet"))
    return FetchedFile(name=name, path=path, digest=digest, size=size, version=version)


def _mixed(found: str) -> DataError:
    return DataError(
        "A column of a source's query has values of several types.",
        found=" ".join(found.split())[:300],
        todo="Convert the column in the query: CAST(column AS ...).",
    )
