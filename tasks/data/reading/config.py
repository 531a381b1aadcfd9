"""What a source declares about its file: the types of its columns, and the form of the file."""

from __future__ import annotations

import codecs
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tasks.core.config import Section

ColumnType = Literal["text", "integer", "number", "boolean", "timestamp", "date", "json"]


class ColumnDefinition(Section):
    """The type of a column and, of a date or timestamp that is not in ISO form, its format."""

    type: ColumnType = Field(
        description="text, integer (64 bits), number, boolean (true and false of JSON and Parquet), timestamp (UTC "
        "where no zone is written), date, or json (nested values, as JSON text)."
    )
    format: str = Field("", description="Format of a date or timestamp, such as %d.%m.%Y; empty: ISO 8601.")

    @model_validator(mode="after")
    def _only_times_have_a_format(self) -> ColumnDefinition:
        if self.format and self.type not in ("date", "timestamp"):
            raise ValueError(f"only a date or a timestamp has a format, not {self.type}")
        return self


def _from_type(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


Column = Annotated[ColumnDefinition, BeforeValidator(_from_type)]


class FileFormat(Section):
    """How a file is written, where it differs from the default."""

    encoding: str = Field("", description="Encoding, such as latin-1; empty: UTF-8, or UTF-16 with a byte order mark.")
    delimiter: str = Field("", max_length=1, description="Between fields; empty: the one of , ; | and tab in line 1.")
    decimal: Literal["", ".", ","] = Field("", description="Decimal separator; empty: the point.")
    member: str = Field("", description="The file to read in a .zip of several.")
    sheet: str = Field("", description="The sheet to read of an Excel file; empty: its first.")

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            return name and codecs.lookup(name).name
        except LookupError as error:
            raise ValueError(f"{name} is no encoding that Python knows; such as utf-8, latin-1, cp1252") from error
