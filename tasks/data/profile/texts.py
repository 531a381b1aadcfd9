"""Recognizes numbers, dates and words for a missing value among texts, by all rows of a column."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tasks.core.duckdb import quote_identifier, quote_literal
from tasks.data.profile.results import ColumnProfile, Reading, TableProfile

if TYPE_CHECKING:
    import duckdb

MISSING_WORDS = frozenset(
    ("", "?", "-", "--", ".", "na", "n/a", "#n/a", "nan", "null", "none", "nil", "missing", "unknown", "(null)", "\\n")
)
ALWAYS = frozenset(("", "?", "#N/A", "(null)", "\\N", "NaN", "nan"))  # no values of any column
MIN_NUMBERS = 0.99  # share of a text column that is numbers, from which on it is one of numbers
MIN_AMONG_WORDS = 0.4  # the same where all other values are words for a missing one
FORMATS = (
    *("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%Y-%m-%d"),
    *("%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y", "%d.%m.%y", "%d/%m/%y", "%m/%d/%y"),
)
CLOCKS = ("%H:%M:%S", "%H:%M", "%I:%M %p", "%I:%M:%S %p", "%H:%M:%S.%f")
MOMENTS = (
    *(f"{day} {clock}" for day in FORMATS for clock in CLOCKS),
    *(f"{day}T{clock}" for day in ("%Y-%m-%d",) for clock in CLOCKS),
)
_AT_ONCE = 300


def read_texts(db: duckdb.DuckDBPyConnection, columns: Mapping[str, ColumnProfile]) -> dict[str, ColumnProfile]:
    """The columns, those of text with what they would rather be read as."""
    texts = [column for column in columns.values() if column.type == "text" and column.distinct > 0]
    facts = _count_forms(db, texts)
    result = dict(columns)
    for column in texts:
        values, numbers, whole = facts[column.name]
        if numbers >= MIN_AMONG_WORDS * values and (reading := _read_numbers(db, column, values, numbers, whole)):
            result[column.name] = column.model_copy(update=_as_numbers(db, column, reading))
        elif formats := candidate_formats(column.examples):
            update = _read_dates(db, column, formats, values)
            result[column.name] = column.model_copy(update=update)
    return result


def shared_words(db: duckdb.DuckDBPyConnection, profile: TableProfile) -> list[str]:
    """Words that stand for a missing value in one column, and are values of other columns of text."""
    words = dict.fromkeys(word for c in profile.columns if c.reading for word in c.reading.words if word not in ALWAYS)
    texts = [column.name for column in profile.columns if column.read_type == "text" and column.distinct]
    if not words or not texts:
        return []
    parts = [f"{quote_identifier(name)}::VARCHAR IN ($word)" for name in texts]
    query = f"SELECT count(*) FROM raw WHERE {' OR '.join(parts)}"
    return [word for word in words if db.execute(query.replace("$word", quote_literal(word))).fetchall()[0][0]]


def candidate_formats(examples: tuple[str, ...]) -> list[tuple[str, str]]:
    """Types and formats that all examples but words for a missing value have, dates before timestamps."""
    values = [each.strip() for each in examples if each.strip().lower() not in MISSING_WORDS]
    if not values or not all(any(c.isdigit() for c in value) and 6 <= len(value) <= 40 for value in values):
        return []
    pairs = [("date", form) for form in FORMATS] + [("timestamp", form) for form in MOMENTS]
    return [(kind, form) for kind, form in pairs if all(_fits(value, form) for value in values)]


def _fits(value: str, form: str) -> bool:
    try:
        return 1800 <= datetime.strptime(value, form).year <= 2200
    except ValueError:
        return False


def _count_forms(db: duckdb.DuckDBPyConnection, texts: list[ColumnProfile]) -> dict[str, tuple[int, int, int]]:
    """Of each text column its values, how many of them are numbers, and how many whole ones."""
    facts: dict[str, tuple[int, int, int]] = {}
    for start in range(0, len(texts), _AT_ONCE):
        some = texts[start : start + _AT_ONCE]
        parts = []
        for column in some:
            name = quote_identifier(column.name)
            # leading zeros, infinity and 20 digits are no numbers: reading them as such would change them
            plain = r"^\s*[+-]?(0|[1-9]\d{0,14})(\.\d+)?([eE][+-]?\d{1,2})?\s*$"
            whole = r"^\s*[+-]?(0|[1-9]\d{0,14})\s*$"
            parts += [
                f"count({name})",
                f"count(*) FILTER (regexp_full_match({name}::VARCHAR, {quote_literal(plain)}))",
                f"count(*) FILTER (regexp_full_match({name}::VARCHAR, {quote_literal(whole)}))",
            ]
        values = db.execute(f"SELECT {', '.join(parts)} FROM raw").fetchall()[0]
        facts |= {column.name: values[3 * i : 3 * i + 3] for i, column in enumerate(some)}
    return facts


def _read_numbers(
    db: duckdb.DuckDBPyConnection, column: ColumnProfile, values: int, numbers: int, whole: int
) -> Reading | None:
    """The text as numbers, if what is none stands for a missing value or is very rare."""
    if numbers == values and numbers:
        return None  # the reader had a reason to leave it text, such as leading zeros
    name = quote_identifier(column.name)
    query = (
        f"SELECT {name}, count(*) AS n FROM raw WHERE {name} IS NOT NULL AND try_cast({name} AS DOUBLE) IS NULL "
        f"GROUP BY 1 ORDER BY n DESC, 1 LIMIT 20"
    )
    others = dict(db.execute(query).fetchall())
    words = {value: n for value, n in others.items() if value.strip().lower() in MISSING_WORDS}
    rejected = {value: n for value, n in others.items() if value not in words}
    if len(rejected) == 1 and sum(rejected.values()) > 1 and numbers >= MIN_NUMBERS * values:
        words, rejected = {**words, **rejected}, {}  # one word again and again is no typing error
    odd = values - numbers - sum(words.values())
    if odd > (1 - MIN_NUMBERS) * values / 2:
        return None
    return Reading(type="integer" if whole == numbers else "number", words=words, rejected=rejected)


def _as_numbers(db: duckdb.DuckDBPyConnection, column: ColumnProfile, reading: Reading) -> dict[str, Any]:
    """The numbers' own facts in place of the text's."""
    number = f"try_cast({quote_identifier(column.name)} AS DOUBLE)"
    number = f"(CASE WHEN isfinite({number}) THEN {number} END)"
    query = (
        f"SELECT count(DISTINCT {number}), min({number}), max({number}), avg({number}), stddev_pop({number}) FROM raw"
    )
    distinct, least, most, mean, deviation = db.execute(query).fetchall()[0]
    listed = {value: n for value, n in column.counts.items() if value not in reading.words}
    facts: dict[str, Any] = {"reading": reading, "distinct": distinct, "least": least, "most": most}
    return {**facts, "mean": mean, "deviation": deviation, "counts": listed, "fractions": reading.type == "number"}


def _read_dates(
    db: duckdb.DuckDBPyConnection, column: ColumnProfile, formats: list[tuple[str, str]], values: int
) -> dict[str, Any]:
    """The first format that all rows have, but for words for a missing value."""
    name = quote_identifier(column.name)
    known = ", ".join(map(quote_literal, sorted(MISSING_WORDS)))
    for kind, form in formats:
        moment = f"try_strptime(trim({name}), {quote_literal(form)})"
        bad = f"{name} IS NOT NULL AND {moment} IS NULL"
        odd_words = f"{bad} AND lower(trim({name})) NOT IN ({known})"
        query = f"SELECT count(*) FILTER ({odd_words}), min({moment}), max({moment}) FROM raw"
        odd, least, most = db.execute(query).fetchall()[0]
        if odd > (1 - MIN_NUMBERS) * values / 2 or least is None or least.year < 1800:
            continue
        others = dict(
            db.execute(
                f"SELECT {name}, count(*) FROM raw WHERE {bad} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 20"
            ).fetchall()
        )
        words = {value: n for value, n in others.items() if value.strip().lower() in MISSING_WORDS}
        rejected = {value: n for value, n in others.items() if value not in words}
        reading = Reading.model_validate({"type": kind, "format": form, "words": words, "rejected": rejected})
        return {"reading": reading, "least": least, "most": most}
    return {}
