"""A case's columns are kept in step with its file, and no other line of the user's case.yaml changes."""

from __future__ import annotations

import yaml

from cli.new_refresh import Change, compare_columns, edit_columns

CASE = """# mine
data:
  sources:
    orders:  # of the shop
      uri: file://orders.csv
      columns:  # typed by hand
        id: integer  # never changes
        day: {type: date, format: "%d.%m.%Y"}
        gone: text
        "no": text
      key: [id]
"""
CHANGES = [Change("day", {"type": "date", "format": "%d.%m.%Y"}, "date"), Change("gone", "text", None)]


def test_only_what_differs_is_edited():
    text = edit_columns(CASE, "orders", [*CHANGES, Change("on", None, "number")])
    assert text == CASE.replace('{type: date, format: "%d.%m.%Y"}', "date").replace("        gone: text\n", "").replace(
        '"no": text\n', "\"no\": text\n        'on': number\n"
    )


def test_a_source_on_one_line_stays_on_it():
    text = 'data: {sources: {a: {uri: "file://x.csv", columns: {id: integer, gone: text}, key: [id]}}}\n'
    edited = edit_columns(text, "a", [Change("gone", "text", None), Change("new", None, "date")])
    source = yaml.safe_load(edited)["data"]["sources"]["a"]
    assert (source["columns"], source["key"]) == ({"id": "integer", "new": "date"}, ["id"])


def test_a_case_without_columns_gets_them():
    for text in (
        "data:\n  sources:\n    a:\n      uri: file://x.csv  # here\n      key: [id]\n",
        "data: {sources: {a: {uri: file://x.csv, key: [id]}}}\n",
    ):
        source = yaml.safe_load(edit_columns(text, "a", [Change("id", None, "integer")]))["data"]["sources"]["a"]
        assert source == {"uri": "file://x.csv", "key": ["id"], "columns": {"id": "integer"}}


def test_differences_are_added_changed_and_removed_columns():
    changes = [*compare_columns({"a": "text", "b": "integer", "c": "date"}, {"a": "text", "b": "number", "d": "json"})]
    assert changes == [Change("b", "integer", "number"), Change("d", None, "json"), Change("c", "date", None)]
    assert changes[0].sentence() == "  ~ b: integer in case.yaml, number by all rows of the file"
