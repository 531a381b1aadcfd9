"""Reading complete and well-formed rows of a request by column, which is quicker than row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from services.serving.schema import MAX_ROWS, MAX_TEXT

EXAMPLE_ID = "example_id"


@dataclass(frozen=True)
class Rows:
    """Rows whose values are of the declared types."""

    values: dict[str, list[Any]]  # by column
    ids: Sequence[str | None]  # example_id


class RowReader:
    """Reads the rows of a release's requests by a decoder that knows its columns and their types."""

    def __init__(self, columns: Sequence[Mapping[str, Any]], missing: frozenset[str]) -> None:
        """columns: from the sealed release; missing: the words that stand for a missing value."""
        import msgspec

        fields = {f"c{number}": column for number, column in enumerate(columns)}  # a name may be no identifier
        identity = ("example_id", Annotated[str, msgspec.Meta(max_length=MAX_TEXT)] | None, None)
        row = msgspec.defstruct(
            "Row",
            [*((field, _type_of(column)) for field, column in fields.items()), identity],
            rename={field: column["name"] for field, column in fields.items()},
            forbid_unknown_fields=True,
            gc=False,
        )
        request = msgspec.defstruct("Request", [("rows", list[row])], forbid_unknown_fields=True)  # type: ignore[valid-type]
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(request).decode
        self._names = [column["name"] for column in columns]
        self._texts = [column["name"] for column in columns if column["kind"] == "text"]
        self._missing = missing

    def read(self, body: bytes) -> Rows | None:
        """The rows by column; None where the request's type has to decide: a gap, another column, an error."""
        import msgspec

        try:
            rows = self._decode(body).rows
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        if not 0 < len(rows) <= MAX_ROWS:
            return None
        *columns, ids = map(list, zip(*map(msgspec.structs.astuple, rows), strict=True))
        values = dict(zip(self._names, columns, strict=True))
        return Rows(values, ids) if all(self._fits(values[name]) for name in self._texts) else None

    def _fits(self, values: list[str | None]) -> bool:
        """Whether the texts of a column are neither words for a missing value nor begin or end with a space."""
        texts = set(values) - {None}
        return texts.isdisjoint(self._missing) and all(
            text and not text[0].isspace() and not text[-1].isspace() for text in texts
        )


def row_reader(sealed: Mapping[str, Any]) -> RowReader | None:
    """The reader of a release's rows, from its manifest; None where a feature has the name of the rows' id."""
    columns = sealed["columns"]
    if any(column["name"] == EXAMPLE_ID for column in columns):
        return None
    return RowReader(columns, frozenset(sealed.get("missing", [""])))


def _type_of(column: Mapping[str, Any]) -> Any:
    import msgspec

    declared: Any = int | float | bool if column.get("boolean") else int | float
    if column["kind"] == "text":
        declared = Annotated[str, msgspec.Meta(max_length=column.get("max_length", MAX_TEXT))]
    return declared | None if column["nullable"] else declared
