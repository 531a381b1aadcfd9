"""A profile says what stands in a table: by all rows, to the letter, and nothing that a person must not see."""

from __future__ import annotations

import pytest

from tasks.core.duckdb import connect
from tasks.data.profile.measure import profile_table
from tasks.data.profile.page import HIDDEN, values_of, write_page
from tasks.data.profile.results import ColumnProfile, TableProfile
from tasks.data.profile.single_columns import score_columns


def profile_of(sql: str, target: str = "", task="classification") -> TableProfile:
    with connect() as db:
        db.execute(f"CREATE TABLE raw AS {sql}")
        profile, frame = profile_table(db, "rows.csv")
        return score_columns(profile, frame, target, task) if target else profile


def column_of(values: str) -> ColumnProfile:
    """The profile of a column `x` of an expression in i, the row's number from 0 to 999."""
    return profile_of(f"SELECT {values} AS x, i FROM range(1000) AS rows(i)").column("x")


def test_counts_are_over_all_rows():
    profile = profile_of("SELECT i // 2 AS pair, if(i % 4 = 0, NULL, 'a') AS word FROM range(60000) AS rows(i)")
    pair, word = profile.columns
    assert (profile.rows, profile.sampled < 60000) == (60000, True)
    assert (word.missing, word.counts, word.distinct) == (15000, {"a": 45000}, 1)
    assert (pair.unique, pair.least, pair.most) == (False, 0, 29999)


def test_equal_rows_are_counted():
    assert profile_of("SELECT i // 2 AS a, 'x' AS b FROM range(100) AS rows(i)").duplicates == 50


@pytest.mark.parametrize("word", ["?", "N/A", "-", "none", "."])
def test_words_for_missing_among_numbers(word):
    """Kind 30: a word among numbers makes no text of them."""
    column = column_of(f"if(i % 50 = 0, '{word}', (i * 7 % 90)::VARCHAR)")
    assert column.reading is not None
    assert (column.read_type, column.reading.words, column.empty) == ("integer", {word: 20}, 20)
    assert (column.least, column.most) == (0, 89)


def test_a_word_again_and_again_is_missing():
    column = column_of("if(i % 200 = 0, 'not measured', (i / 8)::VARCHAR)")
    assert column.reading is not None
    assert (column.read_type, column.reading.words) == ("number", {"not measured": 5})


def test_few_odd_cells_are_named():
    """Kind 31: one bad cell is no reason to give up a column of numbers."""
    column = column_of("if(i = 9, '12 kg', i::VARCHAR)")
    assert column.reading is not None
    assert (column.read_type, column.reading.rejected) == ("integer", {"12 kg": 1})


@pytest.mark.parametrize(
    "values", ["lpad(i::VARCHAR, 6, '0')", "if(i % 9 = 0, 'A' || i, i::VARCHAR)", "'1e' || i || 'x'"]
)
def test_codes_stay_text(values):
    """Kind 7: leading zeros and letters are part of a code."""
    assert column_of(values).read_type == "text"


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("%d.%m.%Y", "date"),
        ("%m/%d/%Y", "date"),
        ("%d %b %Y", "date"),
        ("%Y/%m/%d", "date"),
        ("%d.%m.%Y %H:%M", "timestamp"),
        ("%m/%d/%Y %I:%M %p", "timestamp"),
    ],
)
def test_dates_as_text(form, kind):
    """Kind 36: the format that all rows have, not only the first ones, which fit two."""
    column = column_of(f"strftime(TIMESTAMP '2024-01-01 08:30' + INTERVAL (i % 300) DAY, '{form}')")
    assert column.reading is not None
    assert (column.reading.type, column.reading.format) == (kind, form)
    assert column.least.year == 2024


def test_personal_data_is_named_and_not_shown(tmp_path):
    """Kind 35: by the column's name, or by what stands in it; neither page nor terminal repeats it."""
    people = "['Ada', 'Bob', 'Cleo'][1 + i % 3]"
    profile = profile_of(
        f"SELECT {people} AS first_name, 'a' || i || '@mail.org' AS contact, {people} AS dog, "
        "'Mr. ' || chr((65 + i % 26)::INT) || chr((97 + i % 23)::INT) || 'son' AS \"Name\" FROM range(300) AS rows(i)"
    )
    kinds = {column.name: column.personal for column in profile.columns}
    assert kinds == {
        "first_name": ("people's names",),
        "contact": ("e-mail addresses",),
        "dog": (),
        "Name": ("people's names",),
    }
    page = write_page(profile, [], tmp_path / "page.html").read_text()
    assert "@mail.org" not in page
    assert values_of(profile.column("contact")) == HIDDEN


def test_a_twin_of_the_target_is_a_leak():
    """Kind 34: a copy under another name, and a column that is filled only afterwards."""
    profile = profile_of(
        "SELECT (hash(i) % 2)::INT AS y, if(hash(i) % 2 = 1, 'closed', NULL) AS end_reason, hash(i + 7) % 50 AS noise, "
        "hash(i) % 2 * 3.5 AS twin FROM range(1500) AS rows(i)",
        "y",
    )
    assert {column.name: column.is_leak for column in profile.columns if column.alone is not None} == {
        "end_reason": True,
        "noise": False,
        "twin": True,
    }


def test_parts_of_a_sum_are_a_leak():
    """Kind 34: no part alone tells the sum."""
    profile = profile_of(
        "SELECT a, b, c, a + b AS y FROM (SELECT hash(i) % 97 AS a, hash(i + 1) % 89 AS b, hash(i + 2) % 83 AS c "
        "FROM range(900) AS rows(i))",
        "y",
        "regression",
    )
    assert set(profile.parts) == {"a", "b"}
    assert not any(column.is_leak for column in profile.columns)


def test_the_page_escapes_what_the_file_says(tmp_path):
    profile = profile_of("SELECT '<script>alert(1)</script>' AS \"<b>x\", 1 AS y FROM range(50)")
    page = write_page(profile, [("left out", "<b>x", "<i>why")], tmp_path / "page.html").read_text()
    for text in ("<script>", "<b>x", "<i>why"):
        assert text not in page


def test_nothing_in_a_table_stops_a_profile(tmp_path):
    """Empty columns, infinity, nested values, times of day, no rows at all."""
    odd = "SELECT NULL AS a, 'inf'::DOUBLE AS b, [1, 2] AS c, TIME '12:30' AS d, {'k': 1} AS e, true AS f"
    for rows in (0, 1, 50):
        profile = profile_of(f"{odd} FROM range({rows})")
        assert [column.type for column in profile.columns] == ["text", "number", "json", "text", "json", "boolean"]
        write_page(profile, [], tmp_path / "page.html")
