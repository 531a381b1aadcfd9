"""A case that is begun from a file is valid as it is, whatever the columns are called, and touches nothing else."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cli.new import create_case
from cli.new_options import TableOptions
from flows.case import LanguageCase, TabularCase, load_case
from tasks.core.errors import DataError, InputError
from tasks.core.settings import settings
from tests.conftest import ROOT
from tests.end_to_end.shop import SHOP, write_shop


@pytest.fixture
def cases(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("DRIFTLINE_CASES", str(tmp_path / "cases"))
    monkeypatch.setenv("DRIFTLINE_STATE", str(tmp_path / "state"))
    settings.cache_clear()
    yield tmp_path / "cases"
    monkeypatch.undo()
    settings.cache_clear()


def begun_with_answers(cases: Path, file: Path) -> LanguageCase:
    assert "shop is valid" in create_case("shop", file, TableOptions())
    case = load_case("shop", cases)
    assert isinstance(case, LanguageCase)
    return case


def begun(cases: Path, file: Path, target: str, **options) -> TabularCase:
    assert "shop is valid" in create_case("shop", file, TableOptions(target=target, **options))
    case = load_case("shop", cases)
    assert isinstance(case, TabularCase)
    return case


def test_each_column_is_used_as_what_it_is(cases, tmp_path):
    """Numbers and booleans as they are, text encoded; what names a row or tells no difference is left out."""
    case = begun(cases, write_shop(tmp_path / "Web orders.csv"), "spent")
    assert case.target.task == "regression"
    assert case.data.sources["web_orders"].key == ("order",)
    features = [name for name in case.features.request if name != "day"]  # models may be as good without it
    assert features == ["group", "items", "is new", "Größe", "weight", "back"]
    written = (cases / "shop" / "case.yaml").read_text()
    for line in ("comment: identifier: 200 different words", "country: constant, AT in every row", "day: "):
        assert f"#   {line}" in written


def test_expectations_are_what_the_file_holds(cases, tmp_path):
    """A column that is never empty must not be; ranges and words are warnings, since the next file may have others."""
    case = begun(cases, write_shop(tmp_path / "shop.csv"), "spent")
    expectations = {(each.expect, each.arguments["column"]): each for each in case.data.sources["shop"].expectations}
    assert ("column_values_to_not_be_null", "items") in expectations
    assert ("column_values_to_not_be_null", "weight") not in expectations, "some have none"
    words = expectations["column_values_to_be_in_set", "group"]
    assert (words.arguments["value_set"], words.severity) == (["a, b", "no", "yes"], "warning")


def test_a_target_of_few_values_is_classified(cases, tmp_path):
    assert begun(cases, write_shop(tmp_path / "shop.csv"), "back").target.task == "classification"


def test_with_a_time_the_last_rows_judge(cases, tmp_path):
    case = begun(cases, write_shop(tmp_path / "shop.csv"), "spent", time="day")
    assert case.train.split.by == "time"
    assert case.train.split.share == 0.2, "of the rows"
    assert case.data.sources["shop"].time == "day"


def test_a_row_without_a_name_is_known_by_its_number(cases, tmp_path):
    file = write_shop(tmp_path / "shop.csv", without="order")
    assert begun(cases, file, "spent").data.sources["shop"].key == ("row_id",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "spend"}, "spend: no such column; did you mean spent"),
        ({"target": "spent", "key": ("id",)}, "id: no such column"),
        ({"target": "spent", "time": "group"}, "no valid time"),
        ({"target": "spent", "name": "Shop!"}, "case name is not valid"),
        ({"target": None}, "target column is missing"),
        ({"target": "comment"}, "can't be a target"),
        ({"target": "day"}, "can't be a target"),
    ],
)
def test_wrong_options_are_refused(cases, tmp_path, options, message):
    file = write_shop(tmp_path / "shop.csv")
    with pytest.raises(InputError, match=message):
        create_case(options.pop("name", "shop"), file, TableOptions(**options))
    assert not cases.exists()


def test_a_file_that_is_no_table_or_too_small_is_refused(cases, tmp_path):
    small, other = tmp_path / "small.csv", tmp_path / "other.parquet"
    with small.open("w") as out:
        csv.writer(out).writerows([SHOP[0], *SHOP[1:20]])
    other.write_text("no parquet")
    for file, message in ((small, "too few rows"), (other, "can't be read")):
        with pytest.raises(DataError, match=message):
            create_case("shop", file, TableOptions(target="spent"))


def test_a_case_that_is_there_stays(cases, tmp_path):
    file = write_shop(tmp_path / "shop.csv")
    begun(cases, file, "spent")
    (cases / "shop" / "case.yaml").write_text(yaml.safe_dump({"mine": True}))
    with pytest.raises(InputError, match="A case of that name"):
        create_case("shop", file, TableOptions(target="spent"))
    assert yaml.safe_load((cases / "shop" / "case.yaml").read_text()) == {"mine": True}


def test_without_a_target_messages_and_answers_are_a_language_case(cases):
    """The schema is that of the answers: of few different values those alone, and the empty one to abstain with."""
    case = begun_with_answers(cases, ROOT / "data" / "samples" / "tickets.jsonl")
    schema = case.answer.json_schema
    assert schema["properties"] == {"queue": {"enum": ["delivery", "invoice", "login", "none", "refund"]}}
    assert (schema["required"], case.answer.abstain) == (["queue"], {"queue": "none"})


def test_what_answers_take_from_the_message_is_stated(cases, tmp_path):
    """Chats too; a key that some answers lack is not required, and one of many values is a text that is said."""
    file = tmp_path / "chats.jsonl"
    rows = [({"do": "cancel", "order": f"A{i}"} if i % 2 else {"do": "list", "most": i}) for i in range(80)]
    messages = [f"please {row['do']} {row.get('order', row.get('most'))}" for row in rows]
    chats = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": json.dumps(row)}]
        for text, row in zip(messages, rows, strict=True)
    ]
    file.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    case = begun_with_answers(cases, file)
    schema = case.answer.json_schema
    assert schema["properties"] == {
        "do": {"enum": ["cancel", "list"]},
        "order": {"type": "string"},
        "most": {"type": "integer"},
    }
    assert (schema["required"], set(case.answer.stated)) == (["do"], {"order", "most"})


def test_booleans_are_neither_stated_nor_an_answer(cases, tmp_path):
    """Kind 46: the word true stands in no message, and an answer of nothing but `false` abstains."""
    file = tmp_path / "tickets.jsonl"
    answers = [{"queue": ("refund", "login", "none")[i % 3], "urgent": i % 6 == 0} for i in range(90)]
    lines = [{"prompt": f"true or false {i}", "completion": json.dumps(answer)} for i, answer in enumerate(answers)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    case = begun_with_answers(cases, file)
    assert case.answer.stated == ()
    assert case.answer.abstain == {"queue": "none", "urgent": False}


def test_answers_in_prose_are_a_case_without_tuning(cases, tmp_path):
    """Facts that a line requires become the gate; without facts it is the overlap with the reference."""
    case = begun_with_answers(cases, ROOT / "data" / "samples" / "capitals.jsonl")
    assert (case.answer.format, case.train, case.evaluate.bounds[0].metric) == ("text", None, "required_facts_recall")
    file = tmp_path / "prose.jsonl"
    lines = [{"instruction": f"Say {i}.", "output": f"It is {i}." if i % 9 else "I can't say."} for i in range(60)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    create_case("sayings", file, TableOptions())
    other = load_case("sayings", cases)
    assert (other.evaluate.bounds[0].metric, other.answer.abstain) == ("token_f1", "I can't say.")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"text": "no pair"}] * 99, "holds no instruction pairs"),
        ([{"prompt": f"say {i}", "completion": "hello" if i % 2 else "{}"} for i in range(99)], "too few pairs"),
        ([{"prompt": f"say {i}", "completion": "hello"} for i in range(9)], "too few pairs"),
        ([{"prompt": f"say {i}", "completion": "{}"} for i in range(9)], "too few pairs"),
    ],
)
def test_what_holds_no_pairs_is_refused(cases, tmp_path, lines, message):
    file = tmp_path / "lines.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match=message):
        create_case("shop", file, TableOptions())
    assert not cases.exists()
