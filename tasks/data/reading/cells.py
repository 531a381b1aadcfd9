"""SQL that types the text of a cell strictly: a text that is not wholly of the type becomes null."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.core.duckdb import quote_literal
from tasks.data.reading.config import ColumnDefinition, ColumnType

WHOLE = "0|-?[1-9][0-9]*"  # as a number is printed: no plus, no leading zero
NUMBER = r"-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,5})?"
DATE = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
MOMENT = DATE + r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?( ?(Z|[+-][0-9]{2}(:[0-9]{2})?))?)?"
NAN, INFINITE = "[+-]?nan", "[+-]?inf(inity)?"
REASONS: dict[ColumnType, str] = {
    "text": "is not a text",
    "integer": "is not a whole number of 64 bits",
    "number": "is not a finite number that 64 bits hold",
    "boolean": "is not true or false of JSON or Parquet",
    "timestamp": "is not a timestamp",
    "date": "is not a date",
    "json": "is not JSON",
}


@dataclass(frozen=True)
class Typing:
    """How cells become values: the words for missing values, and the decimal separator."""

    missing: Sequence[str]
    decimal: str = "."

    def present(self, text: str, type_: ColumnType | None) -> str:
        """A text (SQL), null where it stands for a missing value, such as NaN among numbers."""
        words = ", ".join(quote_literal(word) for word in self.missing)
        conditions = [f"{text} NOT IN ({words})"] if words else []
        conditions += [f"NOT {is_nan(text)}"] if type_ == "number" else []
        return f"CASE WHEN {' AND '.join(conditions)} THEN {text} END" if conditions else text

    def value(self, text: str, column: ColumnDefinition) -> str:
        """The value (SQL) of a text that is present, null where it does not fit."""
        match column.type:
            case "text":
                return text
            case "integer":
                return f"CASE WHEN {_matches(text, WHOLE)} THEN TRY_CAST({text} AS BIGINT) END"
            case "number":
                return self._number(text)
            case "boolean":
                return f"CASE {text} WHEN 'true' THEN true WHEN 'false' THEN false END"
            case "json":
                return f"CASE WHEN json_valid({text}) THEN {text} END"
            case "date":
                return _moment(text, column.format, DATE, "DATE")
            case "timestamp":
                return _moment(text, column.format, MOMENT, "TIMESTAMPTZ")

    def _number(self, text: str) -> str:
        point = text if self.decimal == "." else f"replace({text}, ',', '.')"
        pattern = NUMBER if self.decimal == "." else NUMBER.replace(r"\.", ",")
        double = f"TRY_CAST({point} AS DOUBLE)"
        # a whole number that a double would round does not fit
        exact = (
            f"(length({text}) < 16 OR NOT {_matches(text, WHOLE)} "
            f"OR TRY_CAST({text} AS BIGINT) = TRY_CAST(TRY_CAST({text} AS DOUBLE) AS HUGEINT))"
        )
        return f"CASE WHEN {_matches(text, pattern)} AND isfinite({double}) AND {exact} THEN {double} END"


def is_nan(text: str) -> str:
    """Whether a text (SQL) is NaN, which is a missing number."""
    return f"(length({text}) < 5 AND regexp_full_match({text}, '{NAN}', 'i'))"


def is_infinite(text: str) -> str:
    """Whether a text (SQL) is an infinite number."""
    return f"(length({text}) < 10 AND regexp_full_match({text}, '{INFINITE}', 'i'))"


def _matches(text: str, pattern: str) -> str:
    return f"regexp_full_match({text}, '{pattern}')"


def _moment(text: str, form: str, pattern: str, type_: str) -> str:
    if form:
        return f"TRY_CAST(try_strptime({text}, {quote_literal(form)}) AS {type_})"
    return f"CASE WHEN {_matches(text, pattern)} THEN TRY_CAST({text} AS {type_}) END"
