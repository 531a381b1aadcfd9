"""A case that is begun from a file is valid as it is, whatever the columns are called, and touches nothing else."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cli.new import new
from flows.case import LanguageCase, TabularCase, load_case
from tasks.core.errors import DataError, InputError
from tasks.core.settings import settings
from tests.conftest import ROOT
from tests.end_to_end.shop import SHOP, write_shop


@pytest.fixture
def cases(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("DRIFTLINE_CASES", str(tmp_path / "cases"))
    settings.cache_clear()
    yield tmp_path / "cases"
    monkeypatch.undo()
    settings.cache_clear()


def begun_with_answers(cases: Path, file: Path) -> LanguageCase:
    assert "shop is valid" in new("shop", file, None, [], None)
    made = load_case("shop", cases)
    assert isinstance(made, LanguageCase)
    return made


def begun(cases: Path, file: Path, target: str, **options) -> TabularCase:
    said = new("shop", file, target, options.get("key", []), options.get("time"))
    assert "shop is valid" in said
    made = load_case("shop", cases)
    assert isinstance(made, TabularCase)
    return made


def test_each_column_is_used_as_what_it_is(cases, tmp_path):
    """Numbers and booleans as they are, text encoded; what names a row or tells no difference is left out."""
    made = begun(cases, write_shop(tmp_path / "Web orders.csv"), "spent")
    assert made.target.task == "regression"
    assert made.data.sources["web_orders"].key == ("order",)
    assert made.features.request == ("group", "items", "is new", "Größe", "weight", "back")
    assert made.train.encoders[0].columns == ("group", "Größe")
    written = (cases / "shop" / "case.yaml").read_text()
    for left_out in ("comment, text with 200 different values", "country, always the same", "day, neither number nor"):
        assert f"# left out: {left_out}" in written


def test_expectations_are_what_the_file_holds(cases, tmp_path):
    """A column that is never empty must not be; ranges and words are warnings, since the next file may have others."""
    made = begun(cases, write_shop(tmp_path / "shop.csv"), "spent")
    told = {(each.expect, each.arguments["column"]): each for each in made.data.sources["shop"].expectations}
    assert ("column_values_to_not_be_null", "items") in told
    assert ("column_values_to_not_be_null", "weight") not in told, "some have none"
    words = told["column_values_to_be_in_set", "group"]
    assert (words.arguments["value_set"], words.severity) == (["a, b", "no", "yes"], "warning")


def test_a_target_of_few_values_is_classified(cases, tmp_path):
    assert begun(cases, write_shop(tmp_path / "shop.csv"), "back").target.task == "classification"


def test_with_a_time_the_last_rows_judge(cases, tmp_path):
    made = begun(cases, write_shop(tmp_path / "shop.csv"), "spent", time="day")
    assert made.train.split.by == "time"
    assert made.train.split.holdout.days == 39, "a fifth of 199 days"
    assert made.data.sources["shop"].time == "day"


def test_a_row_without_a_name_is_known_by_its_number(cases, tmp_path):
    file = write_shop(tmp_path / "shop.csv", without="order")
    assert begun(cases, file, "spent").data.sources["shop"].key == ("row_id",)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"target": "spend"}, "no column spend"),
        ({"target": "spent", "key": ["id"]}, "no column id"),
        ({"target": "spent", "time": "group"}, "no moment"),
        ({"target": "spent", "name": "Shop!"}, "can't be a case's name"),
        ({"target": None}, "Which column"),
        ({"target": "comment"}, "can't be predicted"),
        ({"target": "day"}, "can't be predicted"),
    ],
)
def test_what_does_not_fit_is_said(cases, tmp_path, options, says):
    file = write_shop(tmp_path / "shop.csv")
    with pytest.raises(InputError, match=says):
        new(options.get("name", "shop"), file, options["target"], options.get("key", []), options.get("time"))
    assert not cases.exists()


def test_a_file_that_is_no_table_or_too_small_is_refused(cases, tmp_path):
    small, other = tmp_path / "small.csv", tmp_path / "other.parquet"
    with small.open("w") as out:
        csv.writer(out).writerows([SHOP[0], *SHOP[1:20]])
    other.write_text("no parquet")
    for file, says in ((small, "too few rows"), (other, "no table")):
        with pytest.raises(DataError, match=says):
            new("shop", file, "spent", [], None)


def test_a_case_that_is_there_stays(cases, tmp_path):
    file = write_shop(tmp_path / "shop.csv")
    begun(cases, file, "spent")
    (cases / "shop" / "case.yaml").write_text(yaml.safe_dump({"mine": True}))
    with pytest.raises(InputError, match="a case of that name"):
        new("shop", file, "spent", [], None)
    assert yaml.safe_load((cases / "shop" / "case.yaml").read_text()) == {"mine": True}


def test_without_a_target_messages_and_answers_are_a_language_case(cases):
    """The schema is that of the answers: of few different values those alone, and the empty one to abstain with."""
    made = begun_with_answers(cases, ROOT / "data" / "samples" / "tickets.jsonl")
    schema = made.answer.json_schema
    assert schema["properties"] == {"queue": {"enum": ["delivery", "invoice", "login", "none", "refund"]}}
    assert (schema["required"], made.answer.abstain) == (["queue"], {"queue": "none"})


def test_what_answers_take_from_the_message_is_stated(cases, tmp_path):
    """Chats too; a key that some answers lack is not required, and one of many values is a text that is said."""
    file = tmp_path / "chats.jsonl"
    rows = [({"do": "cancel", "order": f"A{i}"} if i % 2 else {"do": "list", "most": i}) for i in range(80)]
    asked = [f"please {row['do']} {row.get('order', row.get('most'))}" for row in rows]
    chats = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": json.dumps(row)}]
        for text, row in zip(asked, rows, strict=True)
    ]
    file.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    made = begun_with_answers(cases, file)
    schema = made.answer.json_schema
    assert schema["properties"] == {
        "do": {"enum": ["cancel", "list"]},
        "order": {"type": "string"},
        "most": {"type": "integer"},
    }
    assert (schema["required"], set(made.answer.stated)) == (["do"], {"order", "most"})


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([{"text": "no pair"}] * 99, "holds no instruction pairs"),
        ([{"prompt": f"say {i}", "completion": "hello"} for i in range(99)], "too few pairs"),
        ([{"prompt": f"say {i}", "completion": "{}"} for i in range(9)], "too few pairs"),
    ],
)
def test_what_holds_no_pairs_is_refused(cases, tmp_path, lines, says):
    file = tmp_path / "lines.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match=says):
        new("shop", file, None, [], None)
    assert not cases.exists()
