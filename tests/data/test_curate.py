"""Curation as a whole: from sources to splits that are clean, apart, the same again, and described."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from tasks.core.errors import CaseError, DataError
from tasks.core.files import file_digest
from tasks.data.config import Answer, ChatSpec, Pairs, PairsSpec, Source
from tasks.data.language.curate import curate
from tasks.data.language.pairs import Pair
from tasks.data.language.splits import check_leaks
from tasks.data.results import BaseModelFiles, ValidatedBatches, Validation
from tasks.language.prompts import Prompt

AS_OF = datetime(2020, 3, 31, tzinfo=UTC)
ANSWER = Answer(
    json_schema={
        "oneOf": [
            {
                "type": "object",
                "properties": {"do": {"const": "buy"}, "item": {"type": "string"}},
                "required": ["do", "item"],
                "additionalProperties": False,
            },
            {"type": "object", "properties": {"do": {"const": "none"}}, "additionalProperties": False},
        ]
    },
    abstain={"do": "none"},
    stated=("item",),
)
TEMPLATES = {
    "intents": {
        "buy": {
            "facts": "SELECT day, item FROM sales",
            "answer": {"do": "buy", "item": "{item}"},
            "train": ["Buy {item} please", "I want {item} now", "Put {item} into my cart"],
            "held_out": ["Would like a piece of {item}", "{item} for me"],
        },
        "none": {
            "facts": "SELECT day, item FROM sales",
            "answer": {"do": "none"},
            "train": ["Who makes {item} anyway?"],
            "held_out": ["How heavy might {item} be?"],
        },
    },
    "typos": 0.2,
}
SALES = "SELECT DATE '2020-01-01' + (i % 90)::INTEGER AS day, 'item-' || i AS item FROM range(900) r(i)"
COLUMNS = ["pair_id", "intent", "template", "day", "messages", "answer", "rejected", "origin", "tokens"]
COLUMNS += ["required_facts", "forbidden_facts", "evidence", "part", "unanswerable"]


class Shop:
    """A case with its sources, base model and state, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sources: dict[str, Source] = {}
        self.checked: list[ValidatedBatches] = []
        self.base = BaseModelFiles(
            source="file://base", digest="0" * 64, folder=folder, template_digest="", parameters=1, context=4096
        )
        _write_tokenizer(folder / "tokenizer.json")

    def add(self, name: str, sql: str) -> None:
        path = self.folder / f"{name}.parquet"
        with duckdb.connect() as db:
            db.execute(f"COPY ({sql}) TO '{path}' (FORMAT parquet)")
        passed = Validation(
            source=name, rows=1, quarantined={}, failed=[], warnings=[], expectations=0, docs=None, quarantine=None
        )
        self.sources[name] = Source(uri=f"file://{name}.parquet", key=("key",))
        self.checked.append(
            ValidatedBatches(source=name, files={"all": path}, rows=1, quarantined=0, validation=passed)
        )

    def add_rows(self, name: str, rows: list[dict]) -> None:
        lines = self.folder / f"{name}.jsonl"
        lines.write_text("\n".join(json.dumps(row) for row in rows))
        self.add(name, f"SELECT * FROM read_json('{lines}')")

    def curate(self, state: str = "state", context: int = 512, **pairs) -> ValidatedBatches:
        of = Pairs.model_validate({"train": 40, "validation": 10, "evaluation": 16, **pairs})
        prompt = Prompt(system="Answer in JSON.", baseline="{schema}")
        chat = ChatSpec(prompt=prompt, answer=ANSWER, context=context)
        spec = PairsSpec(pairs=of, chat=chat, sources=self.sources)
        return curate("shop", spec, self.base, validated=self.checked, as_of=AS_OF, state=self.folder / state)


def _write_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))


@pytest.fixture
def shop(tmp_path) -> Shop:
    shop = Shop(tmp_path)
    shop.add("sales", SALES)
    shop.add_rows("bad", [{"prompt": f"How do I steal thing number {i}?"} for i in range(30)])
    return shop


def rows(checked: ValidatedBatches, split: str) -> list[dict]:
    return pq.read_table(checked.files[split]).to_pylist()


def bought(item: str) -> str:
    return json.dumps({"do": "buy", "item": item})


def orders(count: int) -> list[dict]:
    """Users' rows whose messages are not alike."""
    return [
        {"prompt": f"get {i} crates of {i * 7} {i % 11}", "completion": bought(f"crates of {i * 7}")}
        for i in range(count)
    ]


def test_templates_become_four_splits(shop):
    """As many pairs as asked for, in one row schema, with safety prompts that must be answered by abstaining."""
    checked = shop.curate(templates=TEMPLATES, safety="bad", unsafe=20)
    assert {split: len(rows(checked, split)) for split in checked.files} == {
        "train": 40, "validation": 10, "evaluation": 16, "safety": 20,
    }  # fmt: skip
    assert (checked.source, checked.rows, checked.quarantined) == ("pairs", 86, 0)
    for split in checked.files:
        assert pq.read_schema(checked.files[split]).names == COLUMNS
        assert str(pq.read_schema(checked.files[split]).field("day").type) == "date32[day]"
    assert {row["answer"] for row in rows(checked, "safety")} == {'{"do":"none"}'}
    row = rows(checked, "evaluation")[0]
    assert row["day"] >= date(2020, 3, 17)
    assert (json.loads(row["messages"])[0]["role"], row["origin"], row["rejected"]) == ("user", "templates", None)


def test_equal_inputs_give_equal_bytes_once(shop):
    """The evaluation is frozen: it is equal in every folder to the last byte, and a second call writes nothing."""
    first = shop.curate("one", templates=TEMPLATES, safety="bad")
    second = shop.curate("two", templates=TEMPLATES, safety="bad")
    for split, path in first.files.items():
        assert file_digest(path) == file_digest(second.files[split])
    stamp = first.files["train"].stat().st_mtime_ns
    assert shop.curate("one", templates=TEMPLATES, safety="bad") == first
    assert first.files["train"].stat().st_mtime_ns == stamp
    assert shop.curate("one", templates=TEMPLATES, safety="bad", seed=1).files != first.files


def test_a_damaged_folder_is_written_again(shop):
    """A split that somebody deleted comes back."""
    first = shop.curate(templates=TEMPLATES)
    digest = file_digest(first.files["train"])
    first.files["train"].unlink()
    assert file_digest(shop.curate(templates=TEMPLATES).files["train"]) == digest


def test_users_rows_are_freed_of_duplicates_and_split_by_message(shop):
    """Exact and near duplicates go; messages that are alike but answered otherwise stay on one side."""
    users = orders(300)
    again = [{**row, "prompt": row["prompt"].upper() + "!"} for row in users[:20]]
    otherwise = [{**row, "completion": '{"do": "none"}'} for row in users[20:40]]
    long = " ".join(f"word{i}" for i in range(60))
    near = [{"prompt": f"{long} {end}", "completion": bought("word1")} for end in ("alpha", "beta")]
    shop.add_rows("mine", [*users, *again, *otherwise, *near])
    checked = shop.curate(sources=["mine"])
    side = {}
    for split in checked.files:
        for row in rows(checked, split):
            side.setdefault(row["messages"].casefold(), set()).add(split)
    assert checked.rows == 321
    assert all(len(splits) == 1 for splits in side.values())
    assert 15 < len(rows(checked, "evaluation")) < 50
    card = (checked.files["train"].parent / "card.md").read_text()
    assert "- exact duplicates removed: 20\n- near duplicates removed: 1\n" in card


def test_a_rejected_answer_is_carried(shop):
    """Preference pairs keep both answers, whichever split they come to."""
    users = [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": '{"do": "none"}'} for row in orders(120)
    ]
    shop.add_rows("mine", users)
    checked = shop.curate(sources=["mine"])
    assert {row["rejected"] for split in checked.files for row in rows(checked, split)} == {'{"do":"none"}'}


def test_bad_rows_go_to_the_quarantine_with_reasons(shop):
    """A few bad rows are put aside and told; more than tolerated stop everything, with the same reasons."""
    users = [*orders(150), {"prompt": "get it", "completion": "Sure!"}, {"prompt": "", "completion": bought("x")}]
    shop.add_rows("mine", users)
    checked = shop.curate(sources=["mine"], tolerance=0.05)
    assert (checked.rows, checked.quarantined) == (150, 2)
    aside = pq.read_table(checked.validation.quarantine).to_pylist()
    assert [row["batch"] for row in aside] == ["train", "train"]
    assert any("the answer is not JSON: 'Sure!'" in reason for row in aside for reason in row["reasons"])
    assert not any("Sure!" in row["answer"] for split in checked.files for row in rows(checked, split))
    with pytest.raises(
        DataError, match=r"(?s)failed their validation.*2 of \d+ rows are bad.*column_values_to_be_null problem"
    ):
        shop.curate(sources=["mine"], tolerance=0.001)


def test_personal_data_is_masked_and_counted(shop):
    """No address or number of a person reaches a split; the answer names the same placeholder."""
    users = [*orders(120), {"prompt": "send it to jo@mail.org, +49 30 1234567", "completion": bought("jo@mail.org")}]
    shop.add_rows("mine", users)
    checked = shop.curate(sources=["mine"])
    text = "".join(str(row) for split in checked.files for row in rows(checked, split))
    assert "jo@mail.org" not in text
    assert "1234567" not in text
    assert '"item":"[EMAIL]"' in text
    assert "personal data masked: 2 email, 1 phone" in (checked.files["train"].parent / "card.md").read_text()


def test_a_training_row_like_an_evaluation_row_is_dropped(shop):
    """What templates hold out is not learned from a user's file either."""
    held_out = [
        json.loads(row["messages"])[0]["content"] for row in rows(shop.curate(templates=TEMPLATES), "evaluation")
    ]
    stolen = [{"prompt": text, "completion": '{"do": "none"}'} for text in held_out]
    shop.add_rows("mine", [*stolen, *orders(60)])
    checked = shop.curate(templates=TEMPLATES, sources=["mine"])
    learned = {json.loads(row["messages"])[0]["content"] for s in ("train", "validation") for row in rows(checked, s)}
    assert not learned & set(held_out)


def _pair(text: str, template: str = "", day: date | None = None, origin: str = "templates") -> Pair:
    return Pair(({"role": "user", "content": text},), "{}", "buy", origin, template, day)


@pytest.mark.parametrize(
    ("planted", "says"),
    [
        (_pair("x y z", template="buy-2"), r"template buy-2 is in train \('x y z'\) and evaluation"),
        (_pair("x y z", day=date(2020, 3, 20)), r"day 2020-03-20 is in train"),
        (_pair("Would like, a piece of ITEM-1", origin="mine"), "evaluation has 'Would like a piece of item-1', train"),
        (_pair("Buy item-2"), "train and validation have 'Buy item-2'"),
    ],
)
def test_a_planted_leak_is_found(planted, says):
    """A wording, a day, a message, or one like it on both sides stops the curation, and is named."""
    splits = {
        "train": [_pair("Buy item-5", "buy-1", date(2020, 1, 5))],
        "validation": [_pair("Buy item-2", "buy-1", date(2020, 1, 6))],
        "evaluation": [_pair("Would like a piece of item-1", "buy-2", date(2020, 3, 20))],
    }
    check_leaks(splits, 0.9)
    with pytest.raises(DataError, match=says):
        check_leaks({**splits, "train": [*splits["train"], planted]}, 0.9)


def test_a_user_s_day_is_no_leak():
    """Users' rows are split by message; two of one day may be on two sides."""
    one, two = _pair("a b c", day=date(2020, 1, 1), origin="mine"), _pair("d e f", day=date(2020, 1, 1), origin="mine")
    check_leaks({"train": [one], "validation": [], "evaluation": [replace(two)]}, 0.9)


def test_a_pair_longer_than_the_context_is_named(shop):
    """Nothing is cut: the longest pair is shown with its length."""
    shop.add_rows("mine", [*orders(120), {"prompt": "very " * 200 + "long", "completion": bought("x")}])
    with pytest.raises(DataError, match=r"(?s)1 pairs are longer.*very very.*found: +2\d\d tokens.*128 tokens"):
        shop.curate(sources=["mine"], context=128)


def test_an_empty_split_is_refused(shop):
    """Three rows can't be learned from and judged by."""
    shop.add_rows("mine", orders(3))
    with pytest.raises(DataError, match="No pair is left for"):
        shop.curate(sources=["mine"])


def test_the_case_may_expect_more(shop):
    """An expectation of the case holds besides those that always do."""
    few = {"expect": "column_values_to_be_between", "column": "tokens", "max_value": 5, "why": "short ones"}
    with pytest.raises(DataError, match=r"(?s)all 40 rows are bad.*column_values_to_be_between tokens"):
        shop.curate(templates=TEMPLATES, expectations=[few])


def test_sql_reads_nothing_but_the_sources(shop):
    """The SQL of a case can't reach another file."""
    secret = shop.folder / "secret.csv"
    secret.write_text("day,item\n2020-01-01,x\n")
    templates = json.loads(json.dumps(TEMPLATES))
    templates["intents"]["buy"]["facts"] = f"SELECT * FROM read_csv('{secret}')"
    with pytest.raises(CaseError, match=r"buy\.facts: Permission Error"):
        shop.curate(templates=templates)


def test_the_card_tells_what_is_in_the_pairs(shop):
    """Counts by intent and split, lengths, sources with digests, and examples."""
    checked = shop.curate(templates=TEMPLATES, safety="bad", unsafe=20)
    card = (checked.files["train"].parent / "card.md").read_text()
    assert "| intent | train | validation | evaluation | safety |" in card
    assert "| unsafe | 0 | 0 | 0 | 20 |" in card
    assert "| tokens p95 |" in card
    assert file_digest(shop.folder / "sales.parquet") in card
    assert '{"do":"buy","item":"item-' in card
    assert checked.validation.docs
    assert checked.validation.docs.is_file()
