"""Reads JSON lines and JSON arrays: all records decide the keys, and values are read as JSON to the letter."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.duckdb import quote_literal, quote_path
from tasks.core.errors import DataError
from tasks.data.reading.config import ColumnType, FileFormat
from tasks.data.reading.delimited import column_names
from tasks.data.reading.report import RejectedRow
from tasks.data.reading.scan import Cell, Scan
from tasks.data.reading.unpack import PlainFile

if TYPE_CHECKING:
    import duckdb

MAX_OBJECT = 256 << 20  # bytes of one record
NUMBERS = {"BIGINT", "UBIGINT", "HUGEINT", "DOUBLE"}


@dataclass(frozen=True)
class JsonScan(Scan):
    """A file of JSON records."""

    path: Path = Path()
    by_line: bool = True

    def lines(self, ordinals: Collection[int], rejected: Sequence[RejectedRow]) -> dict[int, tuple[int, str]]:
        if not self.by_line:
            return {ordinal: (ordinal + 1, "") for ordinal in ordinals}
        places, ordinal = {}, -1
        with self.path.open("rb") as content:
            for line, text in enumerate(content, 1):
                ordinal += bool(text.strip())
                if ordinal in ordinals and ordinal not in places:
                    places[ordinal] = (line, text.decode("utf-8", "replace").strip())
        return places


def open_json(
    db: duckdb.DuckDBPyConnection, file: PlainFile, form: FileFormat, *, verbatim: bool, known: Collection[str]
) -> JsonScan:
    """A file with the keys of all its records, in the order in which they come.

    known: the columns that the source declares. verbatim: records of instruction pairs, whose texts have no types.
    Raises: DataError for a file that holds no JSON objects.
    """
    import duckdb

    form_of = _form(file)
    function = "read_ndjson_objects" if form_of == "newline_delimited" else "read_json_objects"
    options = "ignore_errors = true" if function == "read_ndjson_objects" else f"format = '{form_of}'"
    objects = (
        f"{function}({quote_path(file.path)}, {options}, maximum_object_size = {MAX_OBJECT}, hive_partitioning = false)"
    )
    keys = (
        "SELECT key FROM (SELECT unnest(json_keys(json)) AS key, generate_subscripts(json_keys(json), 1) AS place, "
        f"number FROM (SELECT json, row_number() OVER () AS number FROM {objects}) WHERE json_type(json) = 'OBJECT') "
        "GROUP BY key ORDER BY min(number), min(place)"
    )
    try:
        names = [name for (name,) in db.execute(keys).fetchall()]
        records = _count_lines(file.path) if form_of == "newline_delimited" else 0
        records = records or db.execute(f"SELECT count(*) FROM {objects}").fetchall()[0][0]
    except duckdb.Error as error:
        raise DataError(
            f"{file.name} is not JSON.",
            where=str(file.path),
            found=str(error).strip().splitlines()[0][:300],
            todo="Correct it: one JSON object a line, or an array of objects.",
        ) from error
    if not names:
        raise DataError(f"{file.name} holds no JSON objects.", where=str(file.path), todo="Deliver it again.")
    column_names(file, names)
    paths = ", ".join(quote_literal("/" + name.replace("~", "~0").replace("/", "~1")) for name in names)
    fault = (
        "CASE WHEN json IS NULL THEN 'not JSON' WHEN json_type(json) <> 'OBJECT' THEN 'not a JSON object' "
        "WHEN len(json_keys(json)) > len(list_distinct(json_keys(json))) THEN 'a key stands in it twice' END"
    )
    relation = f"(SELECT json_extract(json, [{paths}]) AS x, {fault} AS fault FROM {objects})"
    return JsonScan(
        name=file.name,
        relation=relation,
        cells=_cells(db, relation, names, verbatim=verbatim, known=known),
        records=records,
        format=form,
        fault="fault",
        path=file.path,
        by_line=form_of == "newline_delimited",
    )


def _form(file: PlainFile) -> str:
    with file.path.open(encoding="utf-8") as content:
        start = content.read(4096).lstrip()
    if start.startswith("["):
        return "array"
    return "unstructured" if file.suffix == ".json" else "newline_delimited"


def _count_lines(path: Path) -> int:
    with path.open("rb") as content:
        return sum(1 for line in content if line.strip())


def _cells(
    db: duckdb.DuckDBPyConnection, relation: str, names: Sequence[str], *, verbatim: bool, known: Collection[str]
) -> dict[str, Cell]:
    kinds: dict[str, set[str]] = {name: set() for name in names}
    if open_names := [name for name in names if name not in known]:
        values = ", ".join(f"list(DISTINCT json_type(x[{names.index(name) + 1}]))" for name in open_names)
        for name, found in zip(open_names, db.execute(f"SELECT {values} FROM {relation}").fetchall()[0], strict=True):
            kinds[name] = {kind for kind in found or () if kind not in (None, "NULL")}
    return {
        name: _cell(f"x[{number}]", *_types(kinds[name], verbatim=verbatim)) for number, name in enumerate(names, 1)
    }


def _types(kinds: set[str], *, verbatim: bool) -> tuple[ColumnType | None, tuple[ColumnType, ...]]:
    """The type of values of these JSON kinds, or the types that their texts decide between."""
    if kinds & {"OBJECT", "ARRAY"}:
        return "json", ()
    if kinds == {"BOOLEAN"}:
        return "boolean", ()
    if kinds and kinds <= NUMBERS and not (verbatim and len(kinds - {"BIGINT", "UBIGINT"}) not in (0, len(kinds))):
        return None, ("integer", "number")
    if verbatim:
        return ("text" if kinds <= {"VARCHAR"} else "json"), ()
    return (None, ("date", "timestamp")) if kinds == {"VARCHAR"} else ("text", ())


def _cell(value: str, type_: ColumnType | None, candidates: tuple[ColumnType, ...]) -> Cell:
    return Cell(
        text=f"({value}->>'$')",
        literal=f"CASE WHEN json_type({value}) <> 'NULL' THEN {value}::VARCHAR END",
        type=type_,
        candidates=candidates,
    )
